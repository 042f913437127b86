"""Reads of the state."""
