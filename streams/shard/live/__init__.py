"""Predictions of a shard compared with what posts got."""
