"""Features of all tiles of a project: computed once, a few neighbours at a time, then mapped from the disk."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from napari_emtransfer.core.active.uncertainty import unit_length
from napari_emtransfer.core.data.intensity import Standardization
from napari_emtransfer.core.data.project import Project
from napari_emtransfer.core.data.project_records import MicrographRecord
from napari_emtransfer.core.data.resample import WorkingView
from napari_emtransfer.core.errors import EMTransferError, StorageError
from napari_emtransfer.core.nn import devices
from napari_emtransfer.core.nn.feature_cache import FeatureCache, Features, feature_key
from napari_emtransfer.core.nn.pool_features import N_POINTS, PoolFeatures, lattice
from napari_emtransfer.worker.models import open_for, working_view
from napari_emtransfer.worker.rank_tiles import Piece, TileTable, in_turn

# Features of other weights make room for those in use, which never do for each other.
_LEAST_BYTES: Final = 2**30
_ROOM: Final = 1.5
_SMALLEST_STD: Final = 1e-3
_PIECES_AT_ONCE: Final = 16


class TileFeatures:
    """Lattice features and embeddings of the tiles of `table`, as one frozen network sees them.

    A piece of neighbours is one array (n, P + e, D): the lattice of each tile and, below it, its embedding, filled up
    with zeros to e rows.

    Parameters
    ----------
    source
        Samples tiles.
    standardization, working_nm
        How the network wants its micrographs.
    cache
        A folder of its own: these features are kept as long as the micrographs.
    on_fault
        Told once of each micrograph that cannot be opened now: its tiles are left out until it can.
    whole
        Compute whole micrographs at once: quicker, but nobody can stop it in between.
    """

    def __init__(
        self,
        source: PoolFeatures,
        standardization: Standardization,
        working_nm: float | None,
        cache: FeatureCache,
        on_fault: Callable[[EMTransferError], None],
        *,
        whole: bool = False,
    ) -> None:
        self.source = source
        self.cache = cache
        self.working_nm = working_nm
        self.standardization = standardization
        self._on_fault, self._whole = on_fault, whole
        self._unopened: set[str] = set()
        self._view: tuple[MicrographRecord, WorkingView] | None = None
        self._known: dict[str, Features] = {}
        self._keys: dict[Piece, str] = {}
        self._pieces: list[Piece] = []
        self._starts: NDArray[np.intp] = np.zeros(0, np.intp)
        self._embeddings: tuple[int, NDArray[np.float32]] | None = None
        self._table: TileTable | None = None

    @property
    def table(self) -> TileTable:
        """The tiles; those of the last `refresh`."""
        if self._table is None:
            raise RuntimeError("refresh comes first")
        return self._table

    def refresh(self, project: Project) -> None:
        """Take the micrographs and grids of the project as they are now."""
        table = TileTable.of(project, self.working_nm)
        if self._table is not None and _same(self._table, table):
            return
        self._table = table
        windows = table.working_windows
        self._pieces = list(table.pieces(whole=self._whole))
        self._starts = np.array([piece.start for piece in self._pieces], np.intp)
        self._keys = {p: self.key(p.micrograph, windows[p.start : p.stop].tolist()) for p in self._pieces}
        present = set(self._keys.values())
        self._known = {key: values for key, values in self._known.items() if key in present}
        self._embeddings = None

    @property
    def sampled(self) -> NDArray[np.bool_]:
        """(n,) Tiles whose features are there."""
        there = np.zeros(len(self.table), np.bool_)
        for piece, _ in self._sampled_pieces():
            there[piece.start : piece.stop] = True
        return there

    @property
    def unreadable(self) -> NDArray[np.bool_]:
        """(n,) Tiles without features of micrographs that cannot be opened now."""
        closed = [record.stem in self._unopened for record in self.table.records]
        return np.array(closed, np.bool_)[self.table.micrographs] & ~self.sampled

    def sample(
        self,
        project: Project,
        first: str | None,
        seconds: float | None,
        urgent: NDArray[np.bool_],
        should_stop: Callable[[], bool],
        on_progress: Callable[[int, int], None],
    ) -> None:
        """Compute the features that are missing, for at most `seconds`.

        Tiles that are `urgent` (n,) come first, then those of the micrograph `first`, then the others.
        `on_progress` is told the tiles that have features and those in all.
        """
        missing = self._missing(should_stop)
        n_all = len(self.table)
        n_there = n_all - sum(piece.stop - piece.start for piece in missing)
        turn = {number: place for place, number in enumerate(in_turn(self.table.records, first))}
        end = None if seconds is None else time.perf_counter() + seconds
        closed: set[int] = set()
        ordered = sorted(missing, key=lambda p: (not urgent[p.start : p.stop].any(), turn[p.micrograph], p.start))
        for start in range(0, len(ordered), _PIECES_AT_ONCE):
            # Maps between the large blocks of a network would keep the C library from using these again.
            with devices.freed_memory_released():
                for piece in ordered[start : start + _PIECES_AT_ONCE]:
                    if should_stop() or (end is not None and time.perf_counter() >= end):
                        return
                    if piece.micrograph in closed:
                        continue
                    if self._add(project, piece):
                        n_there += piece.stop - piece.start
                        on_progress(n_there, n_all)
                    else:
                        closed.add(piece.micrograph)

    def features(self, tiles: Sequence[int] | NDArray[np.intp]) -> NDArray[np.float16]:
        """Features (k, P, D) of tiles that have some, in this order; at least one."""
        numbers = (np.searchsorted(self._starts, tiles, side="right") - 1).tolist()
        places = zip(tiles, (self._pieces[number] for number in numbers), strict=True)
        return np.stack([self._known[self._keys[piece]][tile - piece.start, :N_POINTS] for tile, piece in places])

    def embeddings(self, among: NDArray[np.bool_] | None = None) -> NDArray[np.float32]:
        """(n, E) Where each tile lies among all, or some (n,), of them: standardised, of length 1; zeros elsewhere.

        Without standardising, the few features of largest spread would say it all.
        """
        if among is None and self._embeddings is not None and self._embeddings[0] == len(self._known):
            return self._embeddings[1]
        rows: NDArray[np.float32] | None = None
        for piece, packed in self._sampled_pieces():
            values = packed[:, N_POINTS:].reshape(piece.stop - piece.start, -1)
            if rows is None:
                rows = np.zeros((len(self.table), values.shape[1]), np.float32)
            rows[piece.start : piece.stop] = values
        if rows is None:
            return np.zeros((len(self.table), 1), np.float32)
        there = self.sampled if among is None else self.sampled & among
        rows[there] = _standardised(rows[there])
        rows[~there] = 0
        if among is None:
            self._embeddings = len(self._known), rows
        return rows

    def kept(self, tiles: NDArray[np.intp]) -> NDArray[np.bool_]:
        """(k, P) Lattice pixels that show the specimen: not those in a data bar."""
        shown = np.ones((len(tiles), N_POINTS), np.bool_)
        for i, tile in enumerate(tiles):
            number = int(self.table.micrographs[tile])
            if self.table.records[number].info_bar is not None:
                shown[i] = self.table.outside_bar(number, self.lattice(int(tile)))
        return shown

    def _sampled_pieces(self) -> Iterator[tuple[Piece, Features]]:
        for piece, key in self._keys.items():
            packed = self._known.get(key)
            if packed is not None:
                yield piece, packed

    def _missing(self, should_stop: Callable[[], bool]) -> list[Piece]:
        """Pieces that are neither in memory nor on the disk; those on the disk are mapped."""
        missing = []
        for piece, key in self._keys.items():
            if key not in self._known:
                packed = None if should_stop() else self.cache.find(key)
                if packed is None:
                    missing.append(piece)
                else:
                    self._keep(piece, packed)
        return missing

    def _keep(self, piece: Piece, packed: Features) -> None:
        self._known[self._keys[piece]] = packed
        per_tile = packed.nbytes / (piece.stop - piece.start)
        self.cache.limit_bytes = max(_LEAST_BYTES, int(_ROOM * per_tile * len(self.table)))

    def _add(self, project: Project, piece: Piece) -> bool:
        """Compute a piece; False where its micrograph cannot be read."""
        packed = self.reading(project, piece.micrograph, lambda view: self._computed(view, piece))
        if packed is None:
            return False
        key = self._keys[piece]
        kept = self.cache.get(key, lambda: packed)
        mapped = self.cache.find(key)  # what lies on the disk need not stay in memory
        self._keep(piece, kept if mapped is None else mapped)
        return True

    def _computed(self, view: WorkingView, piece: Piece) -> Features:
        """(n, P + e, D): the lattice, and below it the embedding, filled up with zeros."""
        windows = [self.table.working_window(tile) for tile in range(piece.start, piece.stop)]
        sample = self.source.sample(view, windows)
        n, _, depth = sample.features.shape
        embeddings = np.pad(sample.embeddings, ((0, 0), (0, -sample.embeddings.shape[1] % depth)))
        return np.concatenate([sample.features, embeddings.reshape(n, -1, depth)], axis=1)

    def reading(self, project: Project, number: int, work: Callable[[WorkingView], Features]) -> Features | None:
        """What `work` makes of a micrograph, which stays open until another one is read.

        A micrograph that cannot be opened or read is told once, and gives None.
        """
        record = self.table.records[number]
        try:
            if self._view is None or self._view[0] != record:
                view = working_view(open_for(project, record.stem), self.standardization, self.working_nm)
                self._view = record, view
            found = work(self._view[1])
        except StorageError:
            raise
        except EMTransferError as error:
            self._view = None
            if record.stem not in self._unopened:
                self._on_fault(error)
            self._unopened.add(record.stem)
            return None
        self._unopened.discard(record.stem)
        return found

    def lattice(self, tile: int) -> NDArray[np.int64]:
        """(P, 2) Working pixels of the micrograph that a tile is sampled at."""
        return np.stack(lattice(self.table.working_window(tile)), axis=-1)

    def key(self, number: int, what: Any) -> str:
        """Name of features of one micrograph, which need not be opened for it."""
        record = self.table.records[number]
        return feature_key(
            source=self.source.fingerprint,
            standardization=self.standardization.model_dump(),
            bar=record.info_bar and record.info_bar.model_dump(),
            checksum=record.checksum,
            frame=record.frame,
            shape=self.table.shapes[number].tolist(),
            what=what,
        )


def _standardised(embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n, E) → each column of mean 0 and variance 1, then each row of length 1."""
    centred = embeddings - embeddings.mean(axis=0)
    return unit_length(centred / np.maximum(centred.std(axis=0), _SMALLEST_STD))


def _same(known: TileTable, other: TileTable) -> bool:
    return known.records == other.records and np.array_equal(known.windows, other.windows)
