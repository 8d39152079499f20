"""Deals out the last tasks: each to the worker that should finish it first (rule 5)."""

from collections.abc import Hashable, Iterable, Sequence

from core.engine.pending import Key, Peer, Pending, Stack, files_of

TAIL = 3  # tasks per worker: with no more waiting, rule 5 counts
MOST_PEERS = 64  # with more, to deal takes longer than a task, and gains a task's time at most
SAME_SPEED = 1.15  # how much slower a worker may be before it counts as slower


def in_tail(waiting: int, workers: int) -> bool:
    """Whether the tasks that wait are the last ones, and few enough workers share them.

    Args:
        waiting: how many tasks wait for these workers.
    """
    return workers <= MOST_PEERS and waiting <= TAIL * workers


def matters_who(peers: Sequence[Peer], load_seconds: float, waiting: int, any_lora: bool) -> bool:
    """Whether it matters which worker gets one of the last tasks.

    Args:
        waiting: how many tasks wait.
        any_lora: one of them needs a LoRA.
    """
    if not peers or not in_tail(waiting, len(peers)):
        return False
    speeds = [peer.seconds_per_work for peer in peers]
    return (load_seconds > 0 and any_lora) or max(speeds) > SAME_SPEED * min(speeds)


def share_out(
    turns: Iterable[Iterable[Pending]], peers: Sequence[Peer], load_seconds: float = 0.0
) -> dict[str, set[Key]]:
    """Keys of the tasks that each worker should run.

    Within a turn the longest task is dealt first, each to whom it should be finished by first.
    All tasks of a LoRA or stack stay together where everything ends sooner so.

    Args:
        turns: tasks of one owner and priority each; what is dealt first delays what comes after.
    """
    dealt = _Deal(peers, load_seconds)
    for tasks in turns:
        ordered = sorted(tasks, key=lambda t: (t.retry, -t.work, _name(t.lora), t.key))
        deals = [dealt.with_more([[task] for task in ordered])]
        if load_seconds:
            pieces: dict[Hashable, list[Pending]] = {}
            for task in ordered:
                alike = (task.lora, task.avoid) if task.lora else task.key
                pieces.setdefault(alike, []).append(task)
            longest = sorted(pieces.values(), key=lambda piece: -sum(t.work for t in piece))
            deals.append(dealt.with_more(longest))
        dealt = min(deals, key=lambda deal: deal.end)
    shares: dict[str, set[Key]] = {peer.name: set() for peer in peers}
    for name, piece in dealt.given:
        shares[name].update([task.key for task in piece])
    return shares


def _name(lora: Stack) -> str:
    return lora or "" if isinstance(lora, str | None) else " ".join(sorted(lora))


class _Deal:
    """Pieces of work dealt out in order, each to the worker that should finish it first.

    The tasks of a piece agree in LoRA and in whom they avoid.
    """

    def __init__(self, peers: Sequence[Peer], load_seconds: float) -> None:
        self._load_seconds = load_seconds
        self._ends = {peer.name: peer.free_in for peer in peers}
        self._speed = {peer.name: peer.seconds_per_work for peer in peers}
        self._loras = {peer.name: peer.loras for peer in peers}
        self.given: list[tuple[str, Sequence[Pending]]] = []  # pieces, each with its worker

    def with_more(self, pieces: Iterable[Sequence[Pending]]) -> "_Deal":
        """A copy of this deal in which `pieces` are dealt out, too."""
        deal = _Deal((), self._load_seconds)
        deal._ends, deal._loras = self._ends.copy(), self._loras.copy()
        deal._speed, deal.given = self._speed, self.given.copy()
        for piece in pieces:
            deal._deal(piece)
        return deal

    @property
    def end(self) -> float:
        """Seconds from now at which the last worker should be done."""
        return max(self._ends.values())

    def _deal(self, piece: Sequence[Pending]) -> None:
        work, avoid = sum(task.work for task in piece), piece[0].avoid
        loads = files_of(piece[0].lora)
        able = [name for name in self._ends if name not in avoid] or [*self._ends]
        ends, speed = self._ends, self._speed
        if loads:
            end, best = min((self._end_of(name, work, loads), name) for name in able)
        else:
            end, best = min([(ends[name] + work * speed[name], name) for name in able])
        ends[best] = end
        self._loras[best] |= loads
        self.given.append((best, piece))

    def _end_of(self, name: str, work: float, loads: frozenset[str]) -> float:
        load = len(loads - self._loras[name]) * self._load_seconds
        return self._ends[name] + load + work * self._speed[name]
