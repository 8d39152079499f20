"""What the commands and a daemon have to agree about."""

PROTOCOL = 1
"""Raise it when `/v1/engine` comes to mean something else; others are not talked to."""

ENGINE_ROUTE = "/v1/engine"

MOST_PRIORITY = 10
"""Of any job; -MOST_PRIORITY is the least."""
