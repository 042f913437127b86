"""Groundswell for programs that use its results: `groundswell.client` reads scores, alerts and outcomes."""
