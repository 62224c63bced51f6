"""When the tiles are ranked anew, and how that fares."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Literal

from napari_emtransfer.core.events import Event, ProgressMade, RunCancelled, RunFailed, RunFinished
from napari_emtransfer.worker.protocol import RankRequest

if TYPE_CHECKING:
    from napari_emtransfer.core.config import RankConfig
    from napari_emtransfer.session.context import Context
    from napari_emtransfer.session.engine import EngineController
    from napari_emtransfer.session.labelling import LabellingController
    from napari_emtransfer.session.messages import StrokesSaved

KEY: Final = "rank"
SLICE_SECONDS: Final = 2.0
WORKING_SLICE_SECONDS: Final = 0.5
"""For so long features of new tiles are computed before the engine is free for others: at most, and while somebody
works, whose next stroke waits for that."""
QUIET_SECONDS: Final = 1.0
"""Tiles that are left are scored while nobody has painted for so long: a stroke is answered within a second."""
SCORED: Final = "tiles"
READ_ONLY_HINT: Final = "Copy the project to a folder that you may write to."


class Ranking:
    """Asks the engine: one ranking at a time, and only what is on disk.

    A tile that is done waits for the ranking that goes on, and asks for another one then: fast work is not to starve
    it. What changes the question itself (another model, other labels, other tiles) overtakes.

    Parameters
    ----------
    config
        What to ask for.
    has_time
        Whether nobody needs the engine soon.
    on_answer, on_change
        Told of an answer, and of everything that can be seen.
    """

    def __init__(
        self,
        context: Context,
        engine: EngineController,
        labelling: LabellingController,
        config: Callable[[], RankConfig],
        has_time: Callable[[], bool],
        on_answer: Callable[[], None],
        on_change: Callable[[], None],
    ) -> None:
        self._context, self._engine, self._labelling = context, engine, labelling
        self._config, self._has_time, self._on_answer, self._on_change = config, has_time, on_answer, on_change
        self._generation = 0
        self.reset()

    def reset(self) -> None:
        """The project was closed, or another one opened: nothing is asked before somebody wants it."""
        self._engine.forget(KEY)
        self._asked: str | None = None
        self._write: int | None = None
        self._n_left: int | None = None
        self._wanted = self._left = False
        self._stale = True
        self.awake = self.unread = False
        self.n_tiles = self.n_scored = 0
        self.resolved, self.fault = "", ("", "")

    @property
    def under_way(self) -> bool:
        """Whether an answer is waited for."""
        return self._asked is not None or self._wanted

    @property
    def phase(self) -> Literal["ready", "ranking", "failed"]:
        """What can be said of it; an answer counts once it has been read (`unread`)."""
        return "ranking" if self.under_way or self.unread else "failed" if self.fault[0] else "ready"

    # ---- wishes

    def go_on(self) -> None:
        """Rank now if anybody goes by the queue (`awake`) and something has changed since the last time."""
        if self._stale and not self.under_way:
            self.want()

    def want(self, *, overtake: bool = False) -> None:
        """Something has changed: rank as soon as all strokes are on disk; while nobody looks, only remember it."""
        self._stale = True
        if overtake:
            self._forget()
        project = self._context.project
        if not self.awake or project is None:
            return
        if project.read_only:  # the engine could not keep what it finds
            self.fault = f"The tiles are not ranked: {project.read_only}.", READ_ONLY_HINT
            self._on_change()
            return
        self._n_left = None
        self._wanted, self._write = True, self._labelling.save_soon()
        self._ask_if_ready()
        self._on_change()

    def cancel(self) -> None:
        """Leave the queue as it is until the next tile is done."""
        self._forget()
        self._wanted = self._left = self._stale = False
        self._on_change()

    def saved(self, message: StrokesSaved) -> None:
        """The writer has put something on disk."""
        if self._write is not None and message.write >= self._write:
            self._write = None
            self._ask_if_ready()

    def tick(self) -> None:
        """Call about ten times a second: scores what is left while there is time."""
        if self._left and not self.under_way and self._has_time():
            self._send()

    # ---- inside

    def _forget(self) -> None:
        self._asked = None
        self._engine.forget(KEY)

    def _ask_if_ready(self) -> None:
        if self._wanted and self._write is None and self._asked is None:
            self._send()

    def _send(self) -> None:
        self._generation += 1
        self._wanted = self._left = self._stale = False
        request = RankRequest(
            run_id=f"{KEY}-{self._generation}",
            project=self._context.require_project().root,
            first=self._labelling.current,
            seconds=SLICE_SECONDS if self._has_time() else WORKING_SLICE_SECONDS,
            generation=self._generation,
            config=self._config(),
        )
        self._asked = request.run_id
        self._engine.ask(request, self._hear, key=KEY)

    def _hear(self, event: Event) -> None:
        if event.run_id != self._asked:
            return
        match event:
            case ProgressMade(what=what) if what == SCORED:
                self.n_scored, self.n_tiles = int(event.done), int(event.total)
            case RunFinished():
                self._asked = None
                self._finished(event)
            case RunFailed():
                self._asked, self._stale = None, True
                self.fault = event.message, event.hint
            case RunCancelled():
                self._asked = None
            case _:
                return
        self._ask_if_ready()
        self._on_change()

    def _finished(self, event: RunFinished) -> None:
        """Go on with what is left, unless a slice has brought it no nearer: then nothing would."""
        self.fault = "", ""
        result, before = event.result, self._n_left
        self.n_tiles, self.n_scored = int(result.get("n_tiles", 0)), int(result.get("n_scored", 0))
        self.resolved = str(result.get("acquisition", ""))
        self._n_left = n_left = int(result.get("n_left", 0))
        self._left = n_left > 0 and (before is None or n_left < before)
        self.unread = True
        self._on_answer()
