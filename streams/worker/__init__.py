"""The worker's process: app, assignment, checkpoints, erasure."""
