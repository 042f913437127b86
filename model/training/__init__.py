"""From labelled snapshots to an artifact."""
