"""Moving bytes: topics, clients, lease, assignment, reading of logs."""
