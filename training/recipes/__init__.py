"""The recipes that come with inhouse: one TOML file per way of training."""
