"""The graph in memory: registers, and the edges that they make live."""
