"""The commands of groundswell, one module each; every function here is short and calls the core."""
