"""The streams: how events reach the graph and scores and alerts leave it."""
