"""The main process: input, scheduling, supervision and records. Never imports model code."""
