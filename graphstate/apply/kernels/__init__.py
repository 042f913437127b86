"""Compiled apply: the arrays of a call, and the code for frequent events and facts."""
