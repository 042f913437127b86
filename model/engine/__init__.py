"""Incremental backends of the network: compiled kernels and torch."""
