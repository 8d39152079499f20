"""A run's figures in words: the same on a terminal, in a log, in a notebook and from outside."""

from core.status.run_status import PHASES, KindStatus, RunStatus

MINUTE, HOUR, DAY = 60, 3600, 24 * 3600


def duration(seconds: float) -> str:
    """A time span, such as 0:42, 3:58, 1:03:58 or 2 d 3:05 h."""
    whole = int(seconds + 0.5)
    if whole >= DAY:
        return f"{whole // DAY} d {whole % DAY // HOUR}:{whole % HOUR // MINUTE:02} h"
    if whole >= HOUR:
        return f"{whole // HOUR}:{whole % HOUR // MINUTE:02}:{whole % MINUTE:02}"
    return f"{whole // MINUTE}:{whole % MINUTE:02}"


def rate(per_minute: float) -> str:
    """A speed, such as 120/min, 12.3/min, or 18/h where less than one comes in a minute."""
    if per_minute >= 100:
        return f"{per_minute:.0f}/min"
    if per_minute >= 1:
        return f"{per_minute:.1f}/min"
    return f"{per_minute * 60:.3g}/h"


def count(kind: KindStatus) -> str:
    """What has ended of a kind, such as 51/100."""
    return f"{kind.ended}/{kind.total}"


def failures(failed: int) -> str:
    """How many failed; empty for none."""
    return f"{failed} failed" if failed else ""


def phase_of(kind: KindStatus) -> str:
    """What is done to tasks of a kind, such as drawing."""
    return PHASES.get(kind.kind, kind.kind)


def _idle(status: RunStatus) -> str:
    """What a run without tasks is at."""
    if status.state == "completed" and status.already_done:
        return f"completed: nothing to do, {status.already_done} were done already"
    return status.phase


def sentence(status: RunStatus) -> str:
    """A run in one line, such as `drawing 51/100, 12.3/min, 3:58 left, 2 failed`."""
    if len(status.kinds) == 1:
        parts = [f"{status.phase} {count(status.kinds[0])}"]
    else:
        parts = [f"{phase_of(kind)} {count(kind)}" for kind in status.kinds] or [_idle(status)]
        if status.state != "running":
            parts.insert(0, status.state)
    if status.state == "running" and status.per_minute is not None:
        parts.append(rate(status.per_minute))
    if status.seconds_left is not None:
        parts.append(f"{duration(status.seconds_left)} left")
    if status.ended is not None:
        parts.append(f"in {duration(status.ended - status.started)}")
    if status.failed:
        parts.append(failures(status.failed))
    if status.waiting_for is not None:
        parts.append(f"waiting ({status.waiting_for.rstrip('.')})")
    return ", ".join(parts)
