"""The Slack bot: hears mentions and threads over Socket Mode, asks the owner, and edits its answer while it streams."""
