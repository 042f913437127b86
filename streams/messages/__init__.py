"""Bytes to typed values and back, for every topic and for event files."""
