"""The generated social stream with known true influence."""
