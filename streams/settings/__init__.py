"""What a process is configured with, where that comes from, and the folders and addresses it may use."""
