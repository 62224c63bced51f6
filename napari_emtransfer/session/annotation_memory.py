"""Annotations in memory: those that are painted on, and the next one before it is needed."""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from napari_emtransfer.session.messages import AnnotationRead, AnnotationWanted, Message

if TYPE_CHECKING:
    from napari_emtransfer.core.data.project import Project
    from napari_emtransfer.core.data.tiles import Window

KEPT_ANNOTATIONS: Final = 4


class AnnotationMemory:
    """The annotations used last. Only `load` may be called off the thread of the views.

    Parameters
    ----------
    keep
        Whether an annotation must stay, because it is shown, or not on disk yet.
    """

    def __init__(self, project: Project, keep: Callable[[str], bool]) -> None:
        self._project, self._keep = project, keep
        self._arrays: OrderedDict[str, NDArray[np.uint8]] = OrderedDict()
        self._coming: set[str] = set()

    def __contains__(self, stem: str) -> bool:
        return stem in self._arrays

    def get(self, stem: str) -> NDArray[np.uint8]:
        """The one array (H, W) that is painted on."""
        if stem not in self._arrays:
            self._hold(stem, self._read(stem))
        self._arrays.move_to_end(stem)
        return self._arrays[stem]

    def window(self, stem: str, window: Window) -> NDArray[np.uint8]:
        """Labels (h, w) of a window: those in memory where there are any, which are newer than those on disk."""
        if stem in self._arrays:
            return self._arrays[stem][window.slices]
        return self._project.annotations.read(stem, window)

    def expect(self, stem: str) -> bool:
        """Whether an annotation is worth reading ahead: say `AnnotationWanted` then."""
        if stem in self._arrays or stem in self._coming:
            return False
        self._coming.add(stem)
        return True

    def load(self, message: Message) -> Message:
        """On the bridge's thread: an annotation that is wanted → the same with its labels. Others pass through."""
        if isinstance(message, AnnotationWanted):
            with contextlib.suppress(Exception):  # told when somebody goes there; the bridge has to go on
                return AnnotationRead(message.stem, self._read(message.stem))
        return message

    def take(self, message: AnnotationRead) -> None:
        """What was read ahead, unless it was needed, or written by somebody else, in the meantime."""
        if message.stem in self._coming:
            self._hold(message.stem, message.labels)

    def forget(self, stem: str) -> None:
        """The micrograph leaves the project."""
        self._arrays.pop(stem, None)
        self._coming.discard(stem)

    def read_again(self, stems: Iterable[str]) -> None:
        """Labels of these were written by somebody else; the arrays that are painted on stay the same ones."""
        self._coming.clear()
        for stem in self._arrays.keys() & set(stems):
            self._arrays[stem][:] = self._project.annotations.read(stem)

    def _read(self, stem: str) -> NDArray[np.uint8]:
        return np.ascontiguousarray(self._project.annotations.read(stem), dtype=np.uint8)

    def _hold(self, stem: str, labels: NDArray[np.uint8]) -> None:
        self._coming.discard(stem)
        self._arrays[stem] = labels
        for old in list(self._arrays)[:-KEPT_ANNOTATIONS]:
            if not self._keep(old):
                del self._arrays[old]
