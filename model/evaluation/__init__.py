"""Metrics and comparisons with the baselines."""
