"""The one-line query language: text to typed questions, and errors that point at the word."""
