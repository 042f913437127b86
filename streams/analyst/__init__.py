"""The analyst: the whole graph in one process, and what only the whole graph shows."""
