"""The two agents: `ingest` (events to packs) and `shard` (packs to scores and alerts)."""
