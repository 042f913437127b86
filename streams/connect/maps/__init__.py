"""The mappings that ship: a TOML file or a module for each source, chosen by name (`--map bluesky`)."""
