"""The process that trains artifacts on the log, judges them in shadow and puts them to use."""
