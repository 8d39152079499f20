"""Which tests `make test` leaves to `make test-all`, as they take seconds of a core each.

Those that a mark says it of, and all that run in a browser or on a Ray cluster.
"""

import pytest


def mark(items: list[pytest.Item]) -> None:
    """Mark as slow what is so by where it runs."""
    for item in items:
        in_browser = "browser" in getattr(item, "fixturenames", ())
        if in_browser or item.get_closest_marker("ray"):
            item.add_marker("slow")
