"""The commands of groundswell, one module each; a command parses options, calls other rooms and prints."""
