"""From what the user wrote to admitted jobs and a plan of what is left to do."""
