"""Checkpoints of a state on another filesystem, and the manifests that describe them."""
