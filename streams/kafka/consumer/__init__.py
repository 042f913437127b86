"""The worker's consumer: Faust's transport, polls, assignment, offsets with notes, fetch errors."""
