"""Micrographs that are ready for the canvas, so that the next tile is there at once."""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from napari_emtransfer.core.errors import EMTransferError
from napari_emtransfer.gui.bridge import Bridge, Done, Failed
from napari_emtransfer.gui.canvas_image import CanvasImage, load_canvas_image

if TYPE_CHECKING:
    from napari_emtransfer.core.data.project_records import MicrographRecord
    from napari_emtransfer.session.session import Session

KEPT_BYTES: Final = 400_000_000
PREFETCHED_BYTES: Final = 200_000_000
PAUSE_SECONDS: Final = 0.05


class ImageCache:
    """Reads micrographs off the GUI thread, keeps the last ones, and fetches others before they are asked for."""

    def __init__(self, session: Session, bridge: Bridge) -> None:
        self._session, self._bridge = session, bridge
        self._project = 0
        self._images: OrderedDict[str, CanvasImage] = OrderedDict()
        self._unreadable: set[str] = set()
        self._prefetcher: Any = None
        self._first: tuple[str, ...] = ()
        self._wanted: deque[MicrographRecord] = deque()
        self._under_way: set[str] = set()

    def get(self, stem: str) -> CanvasImage | None:
        """The image, if it is ready."""
        image = self._images.get(stem)
        if image is not None:
            self._images.move_to_end(stem)
        return image

    def load(self, stem: str, done: Done, failed: Failed) -> None:
        """Read one; `done` gets the `CanvasImage` on the GUI thread."""
        record = next((r for r in self._session.records if r.stem == stem), None)

        def keep(image: CanvasImage, project: int = self._project) -> None:
            self._keep(project, image)
            done(image)

        size = record.pixel_size_nm if record else None
        self._bridge.run(
            lambda: load_canvas_image(stem, self._session.open_micrograph(stem), size), done=keep, failed=failed
        )

    def prefetch(self, first: Iterable[str] | None = None) -> None:
        """Read micrographs that fit into memory, one after the other; what cannot be read is left for later.

        Those of `first` come before all others from now on, in this order, also where older ones have to give way for
        them; None leaves that as it is.
        """
        if first is not None:
            self._first = tuple(dict.fromkeys(first))
        for stem in reversed(self._first):
            self.get(stem)  # what will be wanted soon is not what gives way
        self._wanted = self._worth_fetching()
        self._go_on()

    def keep_only(self, records: Sequence[MicrographRecord]) -> None:
        """Drop micrographs that have left the project or got another pixel size."""
        sizes = {record.stem: record.pixel_size_nm for record in records}
        for stem, image in list(self._images.items()):
            if stem not in sizes or image.pixel_size_nm != sizes[stem]:
                del self._images[stem]

    def clear(self) -> None:
        """Drop everything, what is still being read too: another project may have micrographs of the same names."""
        self._project += 1
        self._images.clear()
        self._unreadable.clear()
        self._wanted.clear()
        self._under_way.clear()
        self._first = ()
        if self._prefetcher is not None:
            self._prefetcher.quit()
            self._prefetcher = None

    def _go_on(self) -> None:
        if self._prefetcher is None and self._wanted:
            keep, end = partial(self._keep, self._project), partial(self._fetched, self._project)
            self._prefetcher = self._bridge.run_steps(self._steps(self._project), keep, end, end)

    def _steps(self, project: int) -> Iterator[CanvasImage]:
        """For a background thread; the list may be replaced or emptied at any time."""
        while project == self._project:
            try:
                record = self._wanted.popleft()
            except IndexError:
                return
            self._under_way.add(record.stem)
            time.sleep(PAUSE_SECONDS)
            try:
                micrograph = self._session.open_micrograph(record.stem)
                yield load_canvas_image(record.stem, micrograph, record.pixel_size_nm)
            except EMTransferError:  # it is reported when it is asked for
                if project == self._project:
                    self._unreadable.add(record.stem)

    def _worth_fetching(self) -> deque[MicrographRecord]:
        """Those that are not ready, as many as fit; four bytes a pixel are assumed."""
        records = {record.stem: record for record in self._session.records}
        named = [records[stem] for stem in self._first if stem in records]
        rest = [record for record in self._session.records if record.stem not in self._first]
        wanted, room = self._that_fit(named, PREFETCHED_BYTES)
        others = sum(_n_bytes(image) for stem, image in self._images.items() if stem not in self._first)
        return deque(wanted + self._that_fit([r for r in rest if r.stem not in self._images], room - others)[0])

    def _that_fit(self, records: Sequence[MicrographRecord], room: int) -> tuple[list[MicrographRecord], int]:
        """The first of them that are to be read, and the room that is left."""
        wanted = []
        for record in records:
            if record.stem in self._unreadable:
                continue
            image = self._images.get(record.stem)
            room -= 4 * record.height * record.width if image is None else _n_bytes(image)
            if room < 0:
                break
            if image is None and record.stem not in self._under_way:
                wanted.append(record)
        return wanted, room

    def _fetched(self, project: int, *_: object) -> None:
        if project != self._project:
            return
        self._prefetcher = None
        self._under_way.clear()  # each of them has been kept, or could not be read
        self._go_on()  # others may have been named when it was through already

    def _keep(self, project: int, image: CanvasImage) -> None:
        if project != self._project:
            return
        self._under_way.discard(image.stem)
        if image.stem not in {record.stem for record in self._session.records}:
            return  # it was removed meanwhile
        self._images[image.stem] = image
        while len(self._images) > 1 and sum(map(_n_bytes, self._images.values())) > KEPT_BYTES:
            self._images.popitem(last=False)


def _n_bytes(image: CanvasImage) -> int:
    levels: list[Any] = list(image.data[1:]) if image.multiscale else [image.data]
    return sum(int(level.nbytes) for level in levels)
