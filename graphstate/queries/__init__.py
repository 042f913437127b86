"""Queries of the state: recent activity, committed neighbourhoods, verification."""
