"""The labelling loop: which tile comes next, what it cost, and when the tiles are ranked anew."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from napari_emtransfer.core.config import AUTO_WEIGHTS, RankConfig
from napari_emtransfer.core.data.project_records import LoopSettings
from napari_emtransfer.core.data.project_settings import checked_loop
from napari_emtransfer.core.errors import ProjectError
from napari_emtransfer.session.messages import Message, ProposalMade, QueueRead, QueueWanted, StrokesSaved
from napari_emtransfer.session.queue_finetune import FineTuning
from napari_emtransfer.session.queue_memory import QueueMemory
from napari_emtransfer.session.queue_ranking import QUIET_SECONDS, Ranking
from napari_emtransfer.session.queue_reading import read_queue
from napari_emtransfer.session.queue_state import QueueState
from napari_emtransfer.session.queue_visit import Visits

if TYPE_CHECKING:
    from napari_emtransfer.core.data.project import Project
    from napari_emtransfer.core.data.project_records import TileState
    from napari_emtransfer.core.data.tiles import Tile
    from napari_emtransfer.session.context import Context
    from napari_emtransfer.session.engine import EngineController
    from napari_emtransfer.session.labelling import LabellingController
    from napari_emtransfer.session.training import TrainingController

LOOP_KEY: Final = ("", 0)
N_AHEAD: Final = 2
"""Annotations of so many tiles to come are read before they are needed."""


class QueueController:
    """The queue and its commands. `load` belongs to the bridge's thread, all other methods to that of the views.

    Nothing here waits: the queue is read on the bridge's thread and written by the autosave's, after the strokes and
    the state of a tile, and before the engine is asked to rank. Every way of calling a tile done, unsure or skipped
    ends or puts aside its entry.

    Parameters
    ----------
    model
        The run that predicts; ranked is by its features.
    clock
        Seconds; monotonic.
    """

    def __init__(
        self,
        context: Context,
        engine: EngineController,
        training: TrainingController,
        labelling: LabellingController,
        model: Callable[[], str | None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._context, self._training, self._labelling, self._model = context, training, labelling, model
        self._memory = QueueMemory(labelling)
        self._visits = Visits(context, labelling, self._memory, clock)
        self._ranking = Ranking(context, engine, labelling, self._rank_config, self._has_time, self._read, self._tell)
        self._finetuning = FineTuning(context, training, labelling, lambda: self._loop, self._counted, self._refused)
        self._loop = LoopSettings()
        self._latest = QueueRead(0)
        self._serial = 0
        self._fault = ("", "")
        self.state = QueueState()

    # ---- opening and closing, called by the session

    def open(self, project: Project) -> None:
        """Begin with the queue as it was left; nothing is ranked before somebody goes by it."""
        self._loop = project.settings.loop
        self._read()
        self._tell()

    def close(self) -> None:
        """The project is about to be closed: hand the writer what it has to know."""
        if self._context.project is None:
            return
        self._visits.clear()
        self._serial += 1
        self._ranking.reset()
        self._finetuning.reset()
        self._memory.clear()
        self._loop, self._latest, self._fault = LoopSettings(), QueueRead(self._serial), ("", "")
        self._set(QueueState())

    # ---- commands

    def refresh(self, *, again: bool = False) -> None:
        """The queue is looked at: rank the tiles if anything has changed since the last time, or, `again`, anyway."""
        self._context.require_project()
        self._ranking.awake = True
        self._ranking.want(overtake=True) if again else self._ranking.go_on()

    def cancel(self) -> None:
        """Leave the queue as it is until another tile is done."""
        self._ranking.cancel()

    def next(self) -> Tile | None:
        """Go to the next tile; None, and nowhere, when all are done."""
        return self._labelling.next_tile()

    def done(self) -> Tile | None:
        """Call the tile that is shown finished, and go to the next one."""
        self._labelling.mark_done()
        return self.next()

    def skip(self, number: int | None = None) -> Tile | None:
        """Leave the tile of an entry (None: that is shown) out for good; if it is shown, go on."""
        return self._lay_aside(number, self._labelling.mark_skipped)

    def defer(self, number: int | None = None) -> Tile | None:
        """Put the tile of an entry (None: that is shown) behind all others; if it is shown, go on."""
        return self._lay_aside(number, self._labelling.mark_unsure)

    def go(self, number: int) -> Tile:
        """Show the tile of an entry.

        Raises
        ------
        ProjectError
            When the queue has no such entry any more.
        """
        return self._labelling.go_to(self._tile_of(number))

    def count_click(self) -> None:
        """A mouse button was pressed on the canvas, or a key that changes labels; painting itself is noticed."""
        self._visits.act(n_clicks=1)

    def set_acquisition(self, name: str) -> None:
        """Choose tiles in another way from now on, and rank them so."""
        self._set_loop(acquisition=name)
        self._ranking.awake = True
        self._ranking.want(overtake=True)

    def set_target(self, half_width: float | None) -> None:
        """The half width (0..1) that the interval of a phase fraction should have; None: no matter."""
        self._set_loop(target_half_width=half_width)
        self._read()

    def set_finetune_every(self, n: int | None) -> None:
        """Train after every `n` done tiles, counted from now; None: never by itself."""
        self._set_loop(finetune_every=n, finetuned_at=self._labelling.n_tiles_done)

    # ---- what the session tells

    def proposed(self) -> Tile | None:
        """The tile that comes next by the queue, which is ranked once that tile is shown."""
        self._ranking.awake = True
        return next(iter(self._memory.coming(self._labelling.tile)), None)

    def looked(self) -> None:
        """Another tile is shown, or none: its clock starts, that of the one before stops."""
        if self._context.project is not None and self._visits.look(self._labelling.tile):
            self._prefetch()
            self._ranking.go_on()
            self._tell()

    def touched(self, stem: str) -> None:
        """Something was painted on this micrograph."""
        self._visits.act(stem)

    def marked(self, tile: Tile, state: TileState) -> None:
        """The user has called a tile done, unsure or skipped, here or anywhere else."""
        self._visits.end(tile, state)
        if state == "done":
            self._finetuning.check()
        if state == "done" or not self._memory.coming(tile):
            self._ranking.want()
        self._prefetch()
        self._tell()

    def outdated(self) -> None:
        """Another model, labels from elsewhere, other micrographs or classes: the ranking is of another project."""
        self._finetuning.recount()
        self._read()
        self._ranking.want(overtake=True)
        self._tell()

    def training_ended(self) -> None:
        """Another one may be due."""
        self._finetuning.check()
        self._tell()

    def saved(self, message: StrokesSaved) -> None:
        """The writer has put on disk what the engine is to read."""
        self._ranking.saved(message)

    def tick(self) -> None:
        """Call about ten times a second: scores what is left while the user pauses."""
        self._ranking.tick()

    # ---- events

    def load(self, message: Message) -> Message:
        """On the bridge's thread: a wish for the queue → the queue. Other messages pass through."""
        project = self._context.project
        if project is None or not isinstance(message, QueueWanted):
            return message
        return read_queue(project, message)

    def apply(self, message: QueueRead | ProposalMade) -> None:
        """The queue as it is on disk, or settings for a training that is due."""
        if isinstance(message, ProposalMade):
            self._fault = ("", "")
            self._finetuning.apply(message)
        elif message.serial == self._serial:
            self._take(message)
        self._tell()

    # ---- inside: the queue

    def _read(self) -> None:
        self._serial += 1
        self._context.inbox.put(QueueWanted(self._serial, self._loop.target_half_width))

    def _take(self, message: QueueRead) -> None:
        self._ranking.unread, self._fault = False, (message.message, message.hint)
        if message.message:
            return
        self._latest = message
        self._memory.read(message.entries, self._visits.entry)
        self._visits.renew()
        self._prefetch()

    def _lay_aside(self, number: int | None, mark: Callable[[Tile | None], None]) -> Tile | None:
        tile = None if number is None else self._tile_of(number)
        mark(tile)
        return self.next() if tile in (None, self._labelling.tile) else self._labelling.tile

    def _tile_of(self, number: int) -> Tile:
        entry = self._memory.get(number)
        tile = None if entry is None else self._memory.tile(entry)
        if tile is None:
            raise ProjectError(f"The queue has no entry {number} any more.", "Choose another one, or rank again.")
        return tile

    def _prefetch(self) -> None:
        for tile in self._memory.coming(self._labelling.tile)[:N_AHEAD]:
            self._labelling.prefetch(tile.micrograph)

    # ---- inside: settings and state

    def _rank_config(self) -> RankConfig:
        run = self._model()
        weights = AUTO_WEIGHTS if run is None else f"run:{run}"
        return RankConfig(acquisition=self._loop.acquisition, weights=weights)

    def _has_time(self) -> bool:
        """For tiles without a score: two torch processes on few cores are in each other's way, and in the user's."""
        return self._visits.quiet_seconds >= QUIET_SECONDS and not self._training.state.is_active

    def _counted(self, n_done: int) -> None:
        self._set_loop(finetuned_at=n_done)

    def _refused(self, message: str, hint: str) -> None:
        self._fault = (message, hint)

    def _set_loop(self, **changes: Any) -> None:
        project = self._context.require_project()
        self._loop = loop = checked_loop(self._loop, **changes)
        self._labelling.record(LOOP_KEY, lambda: project.update_settings(loop=loop))
        self._tell()

    def _tell(self) -> None:
        """Say what is known now, if it is new."""
        if self._context.project is None:
            self._set(QueueState())
            return
        ranking, latest, loop = self._ranking, self._latest, self._loop
        error, hint = ranking.fault if ranking.fault[0] else self._fault
        self._set(
            QueueState(
                phase=ranking.phase,
                entries=tuple(self._memory.open_entries()),
                current=self._visits.entry,
                acquisition=loop.acquisition,
                resolved=ranking.resolved,
                n_tiles=ranking.n_tiles,
                n_scored=ranking.n_scored,
                ranked=ranking.awake,
                rounds=latest.rounds,
                facts=latest.facts,
                advice=latest.advice,
                target_half_width=loop.target_half_width,
                finetune_every=loop.finetune_every,
                n_until_finetune=self._finetuning.n_left,
                error=error,
                hint=hint,
            )
        )

    def _set(self, state: QueueState) -> None:
        if state != self.state:
            self.state = state
            self._context.signals.queue_changed.emit(state)
