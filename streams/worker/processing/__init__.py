"""Polls in; acknowledged outputs and commits out."""
