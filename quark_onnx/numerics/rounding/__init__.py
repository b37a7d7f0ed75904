"""Rounding: the integers of one weight, by what they do to the output of its layer."""
