"""Turns what the user wrote into admitted tasks and a plan of what is left to do."""
