"""Event files in; an artifact, scores or a report out; no worker."""
