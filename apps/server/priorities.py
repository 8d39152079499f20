"""How urgent a caller's jobs may be: a priority goes before everybody's jobs of a lower one."""

from apps.server.errors import ApiError

USUAL, USUAL_OF_BATCHES = 0, -1  # requests that somebody waits for go before batches


def allowed(most: int, asked: int | None = None, usual: int = USUAL) -> int:
    """The priority of a job.

    Args:
        most: what its caller may ask for.
        asked: what the job asks for, if it does.
        usual: of jobs that do not.

    Raises:
        ApiError: 403: it asks for more.
    """
    if asked is None:
        return min(usual, most)
    if asked > most:
        message = (
            f"priority: your API key may ask for {most} at most, and this job asks for {asked}. "
            "Whoever runs the server can allow it more."
        )
        raise ApiError(403, message, "insufficient_permissions", "priority")
    return asked
