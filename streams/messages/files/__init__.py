"""Event files and live pipes: formats, bytes, rows."""
