"""Packs, the messages of the mutations topic: columns of events and facts, their sources, the progress of ingest."""
