"""Ratios, each from one interleaved run; see RESULTS.md for the figures and their commands."""
