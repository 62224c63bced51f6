"""Previews of the augmentation: the engine draws the crops, whoever asked gets them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from napari_emtransfer.core.config import AugmentPreset
from napari_emtransfer.core.errors import AugmentationError
from napari_emtransfer.core.events import Event, RunCancelled, RunFailed, RunFinished
from napari_emtransfer.session.context import Context, require_saved
from napari_emtransfer.session.engine import DIED, EngineController
from napari_emtransfer.worker.protocol import PreviewRequest

_KEY: Final = "preview"


@dataclass(frozen=True, eq=False)
class AugmentPreview:
    """Augmented crops: `images` (9, h, w) uint8, all with one contrast, and `masks` (9, h, w) uint8 label values."""

    micrograph: str
    images: NDArray[np.uint8]
    masks: NDArray[np.uint8]


class AugmentingController:
    """Asks for previews, one after the other; a newer one takes the place of an older one."""

    def __init__(self, context: Context, engine: EngineController, save_now: Callable[[], bool]) -> None:
        self._context, self._engine, self._save_now = context, engine, save_now
        self._serial = 0

    def preview(
        self,
        micrograph: str | None,
        preset: AugmentPreset,
        illegal: Sequence[str],
        crop_px: int,
        done: Callable[[AugmentPreview | None], object],
    ) -> None:
        """Have nine other crops of a micrograph augmented; `done` gets them, or None after a fault that is told.

        Raises
        ------
        AugmentationError
            When no micrograph is shown.
        StorageError
            When the last strokes cannot be saved.
        """
        project = self._context.require_project()
        if micrograph is None:
            raise AugmentationError("No micrograph is shown.", "Show one that has labels first.")
        require_saved(self._save_now(), "no preview was made")
        self._serial += 1
        request = PreviewRequest(
            run_id=f"preview-{self._serial}",
            project=project.root,
            micrograph=micrograph,
            preset=preset,
            illegal=tuple(illegal),
            crop_px=crop_px,
            seed=self._serial,
        )
        self._engine.ask(request, lambda event: self._answer(event, micrograph, done), key=_KEY)

    def _answer(self, event: Event, micrograph: str, done: Callable[[AugmentPreview | None], object]) -> None:
        match event:
            case RunFinished():
                done(self._read(event.result["file"], micrograph))
            case RunFailed():
                if event.kind != DIED:
                    self._context.signals.failed.emit(event.message, event.hint)
                done(None)
            case RunCancelled():
                done(None)

    def _read(self, file: str, micrograph: str) -> AugmentPreview | None:
        try:
            with np.load(file, allow_pickle=False) as stored:
                return AugmentPreview(micrograph, stored["images"], stored["masks"])
        except (OSError, ValueError, KeyError) as error:
            self._context.signals.failed.emit(f"The preview could not be read: {error}.", "Ask for another one.")
            return None
