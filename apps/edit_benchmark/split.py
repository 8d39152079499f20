"""How many devices should score while others edit. Pure."""

DEAD_BAND = 0.75  # devices: nearer than this to the ideal, the split stays as it is


def judges_wanted(
    devices: int,
    judges: int,
    edits_left: int,
    scores_left: int,
    edit_seconds: float | None,
    score_seconds: float | None,
) -> int | None:
    """Of `devices`, those that should score, so that both kinds of work end together.

    Args:
        judges: those that score now; a change has to be worth more than half a device.
        edit_seconds: device time of one edit as measured so far; None: not known yet.

    Returns:
        At least one and not all of them, or None while a rate is unknown.
    """
    if edit_seconds is None or score_seconds is None:
        return None
    editing, scoring = edits_left * edit_seconds, scores_left * score_seconds
    ideal = devices * scoring / max(editing + scoring, 1e-9)
    wanted = judges if abs(ideal - judges) < DEAD_BAND else round(ideal)
    return min(max(wanted, 1), devices - 1)
