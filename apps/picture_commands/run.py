"""A prepared batch on its way: plan, workers, view, results."""

from collections.abc import Callable

from loguru import logger

from apps.gallery.live import LiveGallery
from apps.interrupts import Interrupts
from apps.progress import Mode, View, create_view
from apps.run_summary import Tally
from core.devices.automatic_model import Automatic
from core.devices.model_choice import GENERATOR
from core.events import Event
from core.intake.planning import Plan, tell_plan
from core.multi_gpu_image_generator import MultiGPUImageGenerator
from core.paths import as_text
from core.tasks import Result
from core.worker_spec import Role
from demo_model.vocabulary import names_no_place, unknown_words

MAX_SHOWN_WORDS = 20
MAX_SHOWN_PROMPT = 80  # characters
MOST_ON_A_PAGE = 100_000  # with more, to look at all of them takes minutes and gigabytes


class Run:
    """Runs one batch with a view of it; make it before the batch is prepared.

    Args:
        generator: gets this run's listener.
        mode: how it is shown.
    """

    def __init__(
        self, generator: MultiGPUImageGenerator, interrupts: Interrupts, mode: Mode, log_level: str
    ) -> None:
        self._generator = generator
        self._interrupts = interrupts
        self._mode = mode
        self._log_level = log_level
        self._view: View | None = None
        self._gallery = LiveGallery(generator.output_folder, generator.settings.gallery)
        generator.listener = self._hear

    def _hear(self, event: Event) -> None:
        self._gallery.hear(event)
        if self._view is not None:
            self._view.show(event)

    def execute(
        self,
        plan: Plan,
        what: str,
        why_moved: str,
        draws: bool = True,
        told: Callable[[Result], None] | None = None,
    ) -> Tally:
        """Do what a plan says is to be done; returns what became of it, in numbers.

        Args:
            what: the word for its inputs.
            why_moved: said where inputs stand at other places than before.
            draws: pictures are drawn, too, and not edited alone.
            told: takes each result; nothing keeps them.
        """
        tally = Tally()

        def tell(result: Result) -> None:
            tally.add(result)
            if told is not None:
                told(result)

        self._execute(plan, what, why_moved, draws, tell)
        return tally

    def _execute(
        self, plan: Plan, what: str, why_moved: str, draws: bool, told: Callable[[Result], None]
    ) -> None:
        generator = self._generator
        for result in plan.settled:
            if not result.success:
                logger.error(f"{result.task_id}: {result.status}: {result.error}")
        tell_plan(plan.summary, what, why_moved)
        if self._generator.settings.gallery and plan.to_run + len(plan.settled) > MOST_ON_A_PAGE:
            self._gallery.leave_out()
            folder = as_text(generator.output_folder)
            logger.info(
                f"No page is kept up of more than {MOST_ON_A_PAGE:,} {what}; python gallery.py "
                f"{folder} makes one."
            )
        if not plan.to_run and self._mode != "json":
            generator.run(plan, told)
            return
        _tell_what_the_demo_lacks(generator, plan)
        generator.use_at_most(plan.to_run)
        view = create_view(generator.tracker, self._mode, self._log_level)
        with self._gallery, view:
            self._view = view
            for result in plan.settled:
                view.settled(result, "generate" if draws else "edit")
            if not plan.to_run:
                generator.run(plan, told)
                return
            self._interrupts.run = generator
            if draws and plan.tasks:  # else the first task that is found to be drawn starts workers
                generator.start()
            generator.run(plan, told)
            generator.stop(at_once=self._interrupts.count > 1)
            self._view = None


def _tell_what_the_demo_lacks(generator: MultiGPUImageGenerator, plan: Plan) -> None:
    """The demo models ignore words that they were not taught, and miss places; say so once."""
    texts: dict[Role, list[str]] = {}
    for admitted in plan.tasks:
        text = getattr(admitted.task, "prompt", None) or getattr(admitted.task, "instruction", None)
        if text is not None:
            texts.setdefault(admitted.role, []).append(text)
    for role in texts:
        demo = _automatic(role)
        if demo is None or generator.model_of(role).path_or_id != str(demo.demo):
            continue
        words = dict.fromkeys(word for text in texts[role] for word in unknown_words(text))
        if words:
            shown = ", ".join(list(words)[:MAX_SHOWN_WORDS])
            more = len(words) - MAX_SHOWN_WORDS
            shown += f" and {more} more" if more > 0 else ""
            name = demo.demo_identity.replace("-", " ")
            logger.warning(f"The {name} does not know these words and ignores them: {shown}.")
        vague = next((text for text in texts[role] if names_no_place(text)), None)
        if role == "generate" and vague is not None:
            logger.warning(
                "The demo model often leaves out what has no place. Say left, centre or right, as "
                f"in 'a house on the left'; without one is: {vague[:MAX_SHOWN_PROMPT]!r}."
            )


def _automatic(role: Role) -> Automatic | None:
    """The usual models of a role; None where its tasks have no words."""
    if role == "edit":
        from core.devices.edit_models import EDITOR  # who draws needs nothing of it

        return EDITOR
    return GENERATOR if role == "generate" else None
