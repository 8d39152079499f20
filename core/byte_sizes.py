"""Numbers of bytes as people read them."""

UNITS = ("B", "kB", "MB", "GB")


def shown_bytes(size: float) -> str:
    """A number of bytes as text, such as 20.5 GB, with one digit behind the point."""
    unit = UNITS[0]
    for unit in UNITS:
        if abs(size) < 1000 or unit == UNITS[-1]:
            break
        size /= 1000
    return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
