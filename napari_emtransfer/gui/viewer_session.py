"""The session belongs to the viewer: closing the dock loses nothing, closing the viewer saves everything."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any
from uuid import UUID

from qtpy.QtCore import QObject
from qtpy.QtWidgets import QApplication

from napari_emtransfer.gui.bridge import Bridge
from napari_emtransfer.gui.canvas import Canvas
from napari_emtransfer.gui.queue_canvas import QueueOnCanvas
from napari_emtransfer.session.session import Session
from napari_emtransfer.session.state import RunState

if TYPE_CHECKING:
    from napari.viewer import Viewer

OBJECT_NAME = "emtransfer-session"


def unwrapped(viewer: Viewer) -> Viewer:
    """The viewer itself: napari hands plugins a proxy that hides the main window, to which the session belongs."""
    return getattr(viewer, "__wrapped__", viewer)


class ViewerSession(QObject):
    """Session, bridge and canvas of one viewer; a child of its main window, and closed with it."""

    def __init__(self, viewer: Viewer, session: Session | None = None) -> None:
        window = viewer.window._qt_window
        super().__init__(window)
        self.setObjectName(OBJECT_NAME)
        self.session = session or Session()
        self.bridge = Bridge(lambda message, hint: self.session.signals.failed.emit(message, hint), self)
        self.canvas = Canvas(viewer, self.session, self.bridge, self)
        self.queue_on_canvas = QueueOnCanvas(viewer, self.session, self.canvas, self.bridge, self)
        self._napari_window = viewer.window
        self._task: UUID | None = None
        self._closed = False
        self.bridge.connect(self.session.signals.run_changed, self._enter_task)
        self.bridge.start(self.session, self.canvas.tick)
        window.destroyed.connect(self.close)
        viewer.window._qt_viewer.destroyed.connect(self.close)
        QApplication.instance().aboutToQuit.connect(self.close)

    @classmethod
    def of(cls, viewer: Viewer) -> ViewerSession:
        """The one of this viewer, made when there is none yet."""
        found = viewer.window._qt_window.findChild(QObject, OBJECT_NAME)
        return found if isinstance(found, ViewerSession) else cls(viewer)

    def close(self, *_: Any) -> None:
        """Bank the run, save the strokes, end threads and processes. Once; later calls do nothing."""
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(RuntimeError, AttributeError, TypeError):
            QApplication.instance().aboutToQuit.disconnect(self.close)
        self.queue_on_canvas.close()
        with contextlib.suppress(RuntimeError):  # layers whose window has gone cannot be asked any more
            self.canvas.close()
        with contextlib.suppress(RuntimeError):
            self.bridge.close()
        self.session.close()

    def _enter_task(self, run: RunState) -> None:
        """A running fine-tune stands in napari's list of tasks: napari then asks once before its window is closed."""
        with contextlib.suppress(AttributeError, ImportError):  # napari < 0.7 has no such list
            from napari.utils.task_status import Status

            if run.is_active and self._task is None:
                self._task = self._napari_window._register_task_status(
                    "EM Transfer",
                    Status.BUSY,
                    "A fine-tune is running. Closing banks it, and the next start offers to resume it.",
                )
            elif not run.is_active and self._task is not None:
                self._napari_window._update_task_status(self._task, Status.COMPLETED, "The fine-tune has ended.")
                self._task = None
