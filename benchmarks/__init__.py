"""Ratios, each from one interleaved run; figures and commands are in RESULTS.md."""
