"""Ranges: what was seen of a tensor, and the range that a method takes of it."""
