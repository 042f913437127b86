"""One partition's deterministic step: no clock, no network."""
