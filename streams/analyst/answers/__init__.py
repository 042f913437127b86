"""Answers to questions, from arrays that never change."""
