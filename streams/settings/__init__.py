"""The configuration of a process, its sources, logins, and the folders and addresses that it may use."""
