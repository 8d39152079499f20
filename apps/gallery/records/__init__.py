"""What the record of an output folder tells: lists, exports, checks, and what is in the way."""
