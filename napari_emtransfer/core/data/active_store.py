"""Scores, queue and rounds of active learning in the project's database: written whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields, replace
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, select
from sqlalchemy.dialects import sqlite
from sqlalchemy.dialects.sqlite import insert

from napari_emtransfer.core.data import project_schema as tables
from napari_emtransfer.core.data.project_database import Database
from napari_emtransfer.core.data.queue_records import ENDED, LabellingTime, QueryRound, QueueEntry, QueueState
from napari_emtransfer.core.data.score_table import ScoreTable, stacked
from napari_emtransfer.core.errors import ProjectError

BATCH_ROWS: Final = 10_000
_scores, _queue, _rounds = tables.tile_scores, tables.queue, tables.query_rounds


def _upsert() -> str:
    """SQL with a "?" per column; as text, because 10⁵ rows through the expression layer take twice as long."""
    statement = insert(_scores)
    rest = {column.name: statement.excluded[column.name] for column in _scores.columns if not column.primary_key}
    return str(statement.on_conflict_do_update(_scores.primary_key, set_=rest).compile(dialect=sqlite.dialect()))


_SELECT: Final = str(select(_scores).compile(dialect=sqlite.dialect()))
_UPSERT: Final = _upsert()
# Tiles that somebody has dealt with without the queue: their entries are ended with them.
_END_DEALT_WITH: Final = """
UPDATE queue SET ended = :now, state = (
    SELECT t.state FROM tiles t
    WHERE t.stem = queue.stem AND t.grid = queue.grid AND t."row" = queue."row" AND t."column" = queue."column")
WHERE state IN ('waiting', 'deferred') AND EXISTS (
    SELECT 1 FROM tiles t
    WHERE t.stem = queue.stem AND t.grid = queue.grid AND t."row" = queue."row" AND t."column" = queue."column"
    AND t.state IN ('done', 'skipped'))
"""


class ActiveStore:
    """What active learning keeps in a project. Window, worker and command line may read and write at the same time.

    Rows of a grid that a micrograph no longer has (tile size or pixel size was changed) are not read.

    Parameters
    ----------
    database
        The project's.
    grids
        Gives the key of the present grid of each micrograph, by stem.
    """

    def __init__(self, database: Database, grids: Callable[[], Mapping[str, str]]) -> None:
        self._database = database
        self._grids = grids

    # --- scores

    def read_scores(self) -> ScoreTable:
        """Every score of a present tile."""
        with self._database.reading() as connection:
            rows = connection.exec_driver_sql(_SELECT).cursor.fetchall()
        return _present(_table(rows), self._grids())

    def write_scores(self, scores: ScoreTable, *, batch_rows: int = BATCH_ROWS) -> None:
        """Add or replace the scores of tiles, `batch_rows` in a transaction.

        A kill leaves whole batches; `models` says which rows are new. Those of a micrograph that was removed
        meanwhile are left out.

        Raises
        ------
        StorageError
            When the project cannot be written; the batches before are kept.
        """
        for start in range(0, len(scores), batch_rows):
            batch = scores.take(slice(start, start + batch_rows))
            with self._database.writing() as connection:
                known = list(connection.execute(select(tables.micrographs.c.stem)).scalars())
                rows = _rows(batch.take(np.isin(batch.stems, known)))
                if rows:
                    connection.exec_driver_sql(_UPSERT, rows)

    # --- queue

    def queue(self, states: Sequence[QueueState] | None = None) -> tuple[QueueEntry, ...]:
        """Entries (in these states) in the order of the queue."""
        with self._database.reading() as connection:
            entries = _entries(connection, states)
        grids = self._grids()
        return tuple(entry for entry in entries if grids.get(entry.stem) == entry.grid)

    def replace_waiting(self, entries: Sequence[QueueEntry]) -> tuple[QueueEntry, ...]:
        """Make `entries`, in their order, what waits; one transaction. Returns what waits then.

        Chosen entries that waited and are not among them are deleted. Waiting controls, deferred entries and those that
        somebody has had on the screen stay, unless their grid is gone; ended ones always. An entry with a number keeps
        it and is only moved, if it still waits. New ones whose tile was queued, done or skipped since, or whose
        micrograph is gone, are left out.

        Raises
        ------
        StorageError
            When the project cannot be written; the queue is then as it was.
        """
        grids = self._grids()
        with self._database.writing() as connection:
            connection.exec_driver_sql(_END_DEALT_WITH, {"now": _now()})
            _drop_replaced(connection, {entry.number for entry in entries}, grids)
            _put(connection, entries, grids)
            return tuple(e for e in _entries(connection, ("waiting",)) if grids.get(e.stem) == e.grid)

    def end(
        self, number: int, state: QueueState, seconds: float | None = None, clicks: int | None = None
    ) -> QueueEntry:
        """Record what became of an entry; seconds and clicks are added to those of earlier visits.

        "deferred" leaves it for later; "waiting" takes an end back.

        Raises
        ------
        ProjectError
            When there is no such entry (any more).
        """
        with self._database.writing() as connection:
            entry = _known(connection, number)
            return _changed(
                connection,
                entry,
                state=state,
                seconds=entry.seconds if seconds is None else (entry.seconds or 0.0) + seconds,
                clicks=entry.clicks if clicks is None else (entry.clicks or 0) + clicks,
                ended=_now() if state in ENDED else None,
            )

    def keep(self, entry: QueueEntry) -> None:
        """Store state, effort and end of an entry as they are here.

        If a ranking has replaced it meanwhile, they go to the entry that proposes its tile now, or it comes back.
        Nothing is stored where its micrograph is gone.
        """
        values = {name: getattr(entry, name) for name in ("state", "seconds", "clicks", "ended")}
        cell = [_queue.c[name] == getattr(entry, name) for name in ("stem", "grid", "row", "column")]
        with self._database.writing() as connection:
            for which in ([_queue.c.number == entry.number], [*cell, _queue.c.state.not_in(ENDED)]):
                if connection.execute(_queue.update().where(*which).values(values)).rowcount:
                    return
            here = connection.execute(select(tables.micrographs).where(tables.micrographs.c.stem == entry.stem)).first()
            if here and (entry.shown or entry.state != "waiting"):
                connection.execute(_queue.insert().values(asdict(entry)))

    def labelling_time(self) -> LabellingTime:
        """Seconds and clicks of all entries together, those of former grids too."""
        with self._database.reading() as connection:
            entries = _entries(connection, None)
        done = [e for e in entries if e.state == "done"]
        return LabellingTime(
            seconds=sum(e.seconds or 0.0 for e in entries) or None,
            clicks=sum(e.clicks or 0 for e in entries) or None,
            n_done=len(done),
            n_timed=sum(bool(e.seconds) for e in done),
        )

    # --- rounds

    def rounds(self) -> tuple[QueryRound, ...]:
        """What was known after each ranking, oldest first."""
        wanted = select(_rounds.c.number, _rounds.c.created, _rounds.c.facts).order_by(_rounds.c.number)
        with self._database.reading() as connection:
            return tuple(QueryRound(*row) for row in connection.execute(wanted))

    def add_round(self, facts: Mapping[str, Any], stop_set: NDArray[np.uint8] | None = None) -> QueryRound:
        """Keep what is known after a ranking, and the classes (n,) predicted where stability is judged."""
        created = _now()
        with self._database.writing() as connection:
            values = {"created": created, "facts": dict(facts), "stop_set": _stop_blob(stop_set)}
            number = connection.execute(_rounds.insert().values(values)).inserted_primary_key
        return QueryRound(number[0] if number else 0, created, dict(facts))

    def replace_round(self, number: int, facts: Mapping[str, Any], stop_set: NDArray[np.uint8] | None = None) -> None:
        """Keep what more is known of the same labels, when tiles were scored that had not been."""
        values = {"facts": dict(facts), "stop_set": _stop_blob(stop_set)}
        with self._database.writing() as connection:
            connection.execute(_rounds.update().where(_rounds.c.number == number).values(values))

    def stop_set(self, number: int) -> NDArray[np.uint8] | None:
        """Classes (n,) that were kept with a round; None where there are none."""
        with self._database.reading() as connection:
            blob = connection.execute(select(_rounds.c.stop_set).where(_rounds.c.number == number)).scalar()
        return None if blob is None else np.frombuffer(blob, np.uint8)


def _stop_blob(classes: NDArray[np.uint8] | None) -> bytes | None:
    return None if classes is None else np.ascontiguousarray(classes, np.uint8).tobytes()


def _table(rows: Sequence[Sequence[Any]]) -> ScoreTable:
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(_scores.columns)
    values = dict(zip(_scores.columns.keys(), columns, strict=True))
    return ScoreTable(
        stems=np.array(values["stem"], np.str_),
        rows=np.array(values["row"], np.int64),
        columns=np.array(values["column"], np.int64),
        grids=np.array(values["grid"], np.str_),
        models=np.array(values["model"], np.str_),
        entropy=np.array(values["entropy"], np.float32),
        margin=np.array(values["margin"], np.float32),
        bald=np.array(values["bald"], np.float32),
        novelty=np.array(values["novelty"], np.float32),
        shares=stacked(values["shares"]),
        class_entropy=stacked(values["class_entropy"]),
        embeddings=stacked(values["embedding"]),
    )


def _rows(scores: ScoreTable) -> list[tuple[Any, ...]]:
    """Rows in the order of the columns; nan becomes NULL by SQLite itself."""
    keys = (scores.stems, scores.rows, scores.columns, scores.grids, scores.models)
    numbers = (scores.entropy, scores.margin, scores.bald, scores.novelty)
    vectors = (scores.shares, scores.class_entropy, scores.embeddings)
    blobs = ([row.tobytes() for row in np.ascontiguousarray(table, np.float16)] for table in vectors)
    return list(zip(*(values.tolist() for values in (*keys, *numbers)), *blobs, strict=True))


def _present(scores: ScoreTable, grids: Mapping[str, str]) -> ScoreTable:
    names, place = np.unique(scores.stems, return_inverse=True)
    now = np.array([grids.get(str(name), "") for name in names], np.str_)
    fits = now[place] == scores.grids if len(scores) else np.zeros(0, np.bool_)
    return scores if fits.all() else scores.take(fits)


_ENTRY_FIELDS: Final = tuple(field.name for field in fields(QueueEntry))


def _entry(row: Mapping[str, Any]) -> QueueEntry:
    return QueueEntry(**{name: row[name] for name in _ENTRY_FIELDS})


def _entries(connection: Connection, states: Sequence[QueueState] | None) -> list[QueueEntry]:
    wanted = select(_queue).order_by(_queue.c.position, _queue.c.number)
    if states is not None:
        wanted = wanted.where(_queue.c.state.in_(list(states)))
    return [_entry(dict(row)) for row in connection.execute(wanted).mappings()]


def _known(connection: Connection, number: int) -> QueueEntry:
    row = connection.execute(select(_queue).where(_queue.c.number == number)).mappings().first()
    if row is None:
        raise ProjectError(f"The queue has no entry {number} any more.", "Rank the tiles again, and go on from there.")
    return _entry(dict(row))


def _changed(connection: Connection, entry: QueueEntry, **values: Any) -> QueueEntry:
    connection.execute(_queue.update().where(_queue.c.number == entry.number).values(values))
    return replace(entry, **values)


def _drop_replaced(connection: Connection, kept: set[int], grids: Mapping[str, str]) -> None:
    open_ones = _entries(connection, ("waiting", "deferred"))
    stale = [e.number for e in open_ones if grids.get(e.stem) != e.grid]
    replaced = [e.number for e in open_ones if e.state == "waiting" and not e.control and not e.shown]
    for number in {*stale, *(number for number in replaced if number not in kept)}:
        connection.execute(_queue.delete().where(_queue.c.number == number))


def _put(connection: Connection, entries: Sequence[QueueEntry], grids: Mapping[str, str]) -> None:
    """Move what waits and add what is new, behind all that was dealt with: positions tell the order of dealing."""
    present = _entries(connection, None)
    waiting = {e.number for e in present if e.state == "waiting"}
    taken = {(e.grid, *e.tile) for e in present} | _dealt_with(connection)
    first = 1 + max((e.position for e in present if e.state != "waiting"), default=-1)
    left_over = [e for e in present if e.state == "waiting" and e.number not in {n.number for n in entries}]
    now = _now()
    for position, entry in enumerate([*entries, *left_over], start=first):
        if entry.number in waiting:
            connection.execute(_queue.update().where(_queue.c.number == entry.number).values(position=position))
        elif not entry.number and (entry.grid, *entry.tile) not in taken and grids.get(entry.stem) == entry.grid:
            taken.add((entry.grid, *entry.tile))
            values = asdict(entry) | {"position": position, "state": "waiting", "queued": now, "ended": None}
            connection.execute(_queue.insert().values({k: v for k, v in values.items() if k != "number"}))


def _dealt_with(connection: Connection) -> set[tuple[str, str, int, int]]:
    """(grid, stem, row, column) of every tile that is done or skipped."""
    cells = tables.tiles.c
    wanted = select(cells.grid, cells.stem, cells.row, cells.column).where(cells.state.in_(ENDED))
    return {(grid, stem, row, column) for grid, stem, row, column in connection.execute(wanted)}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
