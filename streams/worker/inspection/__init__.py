"""Audit of served scores, and their explanation."""
