"""The instruction-editing benchmark: edit every pair, score every edit, write the table."""
