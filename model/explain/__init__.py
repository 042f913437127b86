"""What carries a score."""
