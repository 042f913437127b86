"""Moves bytes between Kafka and the worker: topics, clients, lease, assignment, reading of logs."""
