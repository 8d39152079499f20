"""Tasks that are the same as before but for their place in the input."""

from collections.abc import Iterator, Mapping, Sequence

from core.intake.admission import Admitted
from core.intake.assessment import Assessed
from core.intake.changes import field_changes
from core.intake.differences import TEXTS, Change
from core.intake.made import Made, text_of
from core.intake.plan_summary import MOVED
from core.store.ledger import Entry, Ledger
from core.tasks import GenerateTask, fields_of


class MovedTasks:
    """Finds tasks that are the same as before but for their place in the input.

    A default seed goes by the place, and so does a default name: the result under a moved
    task's name is another task's, and its own lies under another name.
    """

    def __init__(
        self, assessed: Sequence[Assessed], known: Mapping[str, Entry], ledger: Ledger
    ) -> None:
        self._assessed = assessed
        self._known = known
        self._ledger = ledger
        self._origins: dict[str, list[tuple[str, Made]]] | None = None
        self._now = {
            one.item.output.key: text_of(one.entry.task)
            for one in assessed
            if isinstance(one.item, Admitted)
        }

    def seen(self, one: Assessed, changes: list[Change]) -> list[Change]:
        """The changes of a task, in view of where it stood."""
        assert isinstance(one.item, Admitted) and one.made is not None
        changed = {change.what for change in changes}
        if changed & set(TEXTS) and isinstance(one.item.task, GenerateTask):
            origin = self._origin(one.item)
            if origin is None:
                return changes
            seed = "seed" if origin.task.get("seed") != one.item.task.seed else "name"
            made = [change for change in changes if change.of_the_maker]
            return [Change(f"{seed} {MOVED}"), *field_changes(one.item, origin), *made]
        entry = self._known.get(one.item.output.key)
        if "seed" in changed and entry is not None and entry.fingerprint == one.made.fingerprint:
            seeds = one.made.task.get("seed"), one.item.task.seed
            if isinstance(seeds[0], int) and seeds[1] is not None:
                by = one.item.position - entry.position
                if by and seeds[1] - seeds[0] == by:
                    others = [change for change in changes if change.what != "seed"]
                    return [Change(f"seed {MOVED}"), *others]
        return changes

    def _origin(self, admitted: Admitted) -> Made | None:
        """The result that was made of this task's prompt, under a name that another one has now."""
        if self._origins is None:
            self._origins = {}
            for key, made in self._results():
                if made.text is not None:
                    self._origins.setdefault(made.text, []).append((key, made))
        text = text_of(fields_of(admitted.task))
        found = self._origins.get(text or "", [])
        return next((made for key, made in found if self._now.get(key) != text), None)

    def _results(self) -> Iterator[tuple[str, Made]]:
        for one in self._assessed:
            if one.made is not None and isinstance(one.item, Admitted):
                yield one.item.output.key, one.made
        for entry in self._ledger.finished():
            yield entry.key, Made(entry.task, entry.used, None, [], str(entry.fingerprint))
