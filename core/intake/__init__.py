"""From what the user wrote to admitted tasks and a plan of what is left to do."""
