"""Operator procedures against stopped or running workers."""
