"""Event files and live pipes: what a file is, its bytes, its rows."""
