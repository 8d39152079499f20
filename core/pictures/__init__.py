"""Pictures that users give, read as they were meant."""
