"""Names in few columns of a terminal; a letter may take none, one or two of them."""

from rich.cells import cell_len, set_cell_size

from core.errors import one_line

CUT = "…"
JOINER = "\u200d"  # makes one picture of several emoji on some terminals, and none on others


def clean(name: str) -> str:
    """A name without what would move a terminal's cursor, or leaves its width open."""
    return one_line(name.replace(JOINER, ""))


def cut(name: str, room: int) -> str:
    """A name in `room` columns; what names have in common is their beginning, so the end stays."""
    if cell_len(name) <= room:
        return name
    if room < 1:
        return ""
    end = ""
    for letter in reversed(name):
        if cell_len(letter + end) > (room - 1) // 3:
            break
        end = letter + end
    start = set_cell_size(name, room - 1 - cell_len(end)).rstrip()
    return f"{start}{CUT}{end}"


def shares(wanted: list[int], room: int) -> list[int]:
    """Columns for each of several names: what it wants, or an equal part of what others leave."""
    got = [0] * len(wanted)
    left = sorted(range(len(wanted)), key=wanted.__getitem__)
    while left:
        place = left.pop(0)
        got[place] = max(0, min(wanted[place], room // (len(left) + 1)))
        room -= got[place]
    return got
