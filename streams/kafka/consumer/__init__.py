"""The worker's consumer: Faust transport, polls, partition assignment, offsets with notes, fetch errors."""
