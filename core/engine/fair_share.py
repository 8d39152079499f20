"""Fair queueing: owners share the devices equally, by the work that they were served.

Start-time fair queueing (Goyal, Vin and Cheng 1996). Each owner with waiting tasks has a virtual
time, the work served to it; the owner with the least is next. The clock stands where the owner
that was served last began. An owner that comes anew starts at the clock, so that time without
tasks is no credit; one that was served ahead of its share and comes back soon goes on where it
was, so that to queue one task at a time is no advantage.
"""

from collections.abc import Hashable, Iterator

REMEMBERED = 16  # owners without tasks, before those that are forgotten are looked for


class FairShare:
    """Virtual times of the owners that compete for the same devices."""

    def __init__(self) -> None:
        # Of owners with waiting tasks: virtual time, and whether anything was served since they
        # came. Compared as they are: at equal times an owner that is new comes first.
        self._turns: dict[Hashable, tuple[float, bool]] = {}
        self._ahead: dict[Hashable, float] = {}  # times of owners without tasks, past the clock
        self._clock = 0.0

    def join(self, owner: Hashable) -> None:
        """Note that an owner has tasks waiting; nothing changes if it had some before."""
        if owner not in self._turns:
            time = self._ahead.pop(owner, self._clock)
            self._turns[owner] = (max(time, self._clock), time > self._clock)

    def leave(self, owner: Hashable) -> None:
        """Note that an owner has no task waiting any more."""
        time, _ = self._turns.pop(owner)
        if time > self._clock:
            self._ahead[owner] = time
        if len(self._ahead) > REMEMBERED + len(self._turns):
            self._ahead = {o: t for o, t in self._ahead.items() if t > self._clock}

    def in_turn(self) -> Iterator[Hashable]:
        """Owners with waiting tasks, the one whose turn it is first."""
        if len(self._turns) == 1:
            yield from self._turns
        elif self._turns:
            place = self._turns.__getitem__
            yield min(self._turns, key=place)  # mostly enough, and cheaper than sorting
            yield from sorted(self._turns, key=place)[1:]

    def is_new(self, owner: Hashable) -> bool:
        """The owner was served nothing since it came, and came without a lead."""
        return not self._turns[owner][1]

    def lead(self, owner: Hashable, over: Hashable) -> float:
        """How much more work an owner was served than another one."""
        return self._turns[owner][0] - self._turns[over][0]

    def serve(self, owner: Hashable, work: float, instead_of: Hashable) -> None:
        """Charge an owner for a task.

        Args:
            instead_of: the owner whose turn it was, mostly the same.
        """
        self._clock = max(self._clock, self._turns[instead_of][0])
        # An owner that no worker could serve for a while does not make up for it later.
        self._turns[owner] = (max(self._turns[owner][0], self._clock) + work, True)

    def charge(self, owner: Hashable, work: float) -> None:
        """Charge an owner for a task that runs together with the one it was just served."""
        self._turns[owner] = (self._turns[owner][0] + work, True)
