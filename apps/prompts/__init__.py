"""What prompts are read from, multiplied by and chosen by, for every command that has prompts."""
