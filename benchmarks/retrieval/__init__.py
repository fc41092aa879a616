"""The retrieval benchmark: how well, how fast, with how much memory, and how it keeps up; beside the peers."""
