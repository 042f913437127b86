"""The worker as a member of the consumer group: Faust app, assignment, start positions, identity of topics."""
