"""The naive graph: the same state derived from the set of events by plain code."""
