"""What a process reports: metrics, logs, health, console."""
