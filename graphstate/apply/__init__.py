"""What events mean: registers, aggregates, remote facts, eviction."""
