"""Packs, the messages of the mutations topic: events and facts as columns, their sources, and the progress of ingest."""
