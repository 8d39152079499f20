"""Which devices there are, how much memory is free, and which model fits where."""
