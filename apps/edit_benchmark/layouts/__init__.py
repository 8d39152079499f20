"""How benchmarks name the files of edits; each file here registers one way."""
