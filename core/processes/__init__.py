"""Worker processes on this machine: how they start, what they say, how they end."""
