"""A run's events as lines and a progress bar on stderr; the bar only where someone watches a terminal."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn

from napari_emtransfer.cli.output import describe_ground, format_iou
from napari_emtransfer.core.events import (
    TERMINAL,
    Event,
    IterationEnded,
    NoticePosted,
    ProgressMade,
    RunStarted,
    ValidationEnded,
)


class RunDisplay:
    """Shows a run while it goes on and keeps its terminal event.

    Parameters
    ----------
    title
        What the bar is for, for example "train".
    """

    def __init__(self, title: str) -> None:
        self._title = title
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[note]}"),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task: TaskID | None = None
        self.terminal: Event | None = None

    def __enter__(self) -> RunDisplay:
        self._progress.start()
        self._task = self._progress.add_task(self._title, total=None, note="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def emit(self, event: Event) -> None:
        """Take one event."""
        match event:
            case RunStarted():
                self._update(event.first_step, event.n_steps, f"on {event.device}")
            case IterationEnded():
                self._update(event.iteration, None, f"loss {event.loss:.3f}{_time_left(event.seconds_left)}")
            case ProgressMade():
                self._update(event.done, event.total, event.what)
            case ValidationEnded():
                ground = describe_ground(event.ground)
                best = " (best)" if event.is_best else ""
                self.say(f"iteration {event.iteration}: mean IoU {format_iou(event.mean_iou)}, {ground}{best}")
            case NoticePosted():
                self.say(f"note: {event.message} {event.hint}".rstrip())
        if isinstance(event, TERMINAL):
            self.terminal = event

    def say(self, line: str) -> None:
        """One line above the bar."""
        self._console.print(line, markup=False)

    def _update(self, done: float, total: float | None, note: str) -> None:
        if self._task is not None:
            self._progress.update(self._task, completed=done, total=total, note=note)  # None: as before


def _time_left(seconds: float | None) -> str:
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    return f", {minutes}:{rest:02d} left"
