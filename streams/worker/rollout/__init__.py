"""Replacement of the model in use while the worker runs."""
