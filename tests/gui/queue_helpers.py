"""A queue whose words the test says, in place of a session's own."""

from __future__ import annotations

from dataclasses import replace

from napari_emtransfer.core.active.rounds import ControlFacts, DifferenceFacts, PhaseFacts, RoundFacts
from napari_emtransfer.core.data.queue_records import QueryRound, QueueEntry
from napari_emtransfer.session.queue_state import QueueState

REASONS = (
    ("uncertain {0}", 0.83),
    ("unlike anything labelled", 0.61),
    ("typical of many unlabelled tiles", 0.42),
    ("uncertain {1}", 0.71),
    ("random control", None),
)


class SaidQueue:
    """Remembers what it was told; its state is said by the test. Going to a tile is real."""

    def __init__(self, session):
        self._session = session
        self.state = QueueState(phase="ready")
        self.told = []

    def become(self, **changes):
        """Another state, told to the views."""
        self.state = replace(self.state, **changes)
        self._session.signals.queue_changed.emit(self.state)

    def go(self, number):
        entry = next(e for e in self.state.entries if e.number == number)
        tile = self._session.labelling.grid(entry.stem).tile(entry.row, entry.column)
        self._session.labelling.go_to(tile)
        self.become(current=entry)
        return tile

    def load(self, message):
        return message

    def __getattr__(self, name):
        return lambda *values, **named: self.told.append((name, *values, *named.items()))


def entries(session, n=12):
    """Proposals over all micrographs in turn, every fifth a random control."""
    names = session.schema.names[-2:]
    found = []
    for i in range(n):
        record = session.records[i % len(session.records)]
        grid = session.labelling.grid(record.stem)
        cells = list(grid)
        cell = cells[(i // len(session.records)) % len(cells)]
        reason, score = REASONS[i % 5]
        is_control = i % 5 == 4
        found.append(
            QueueEntry(
                stem=record.stem,
                grid=grid.key,
                row=cell.row,
                column=cell.column,
                query_round=1,
                score=score,
                reason=reason.format(*names),
                acquisition="clasp",
                model="run:0001",
                class_name={0: names[0], 3: names[1]}.get(i % 5, ""),
                control=is_control,
                probability=None if is_control else 0.013,
                number=i + 1,
                position=i,
            )
        )
    return tuple(found)


def rounds(names, n=6, *, unmeasured=1):
    """As many rankings; in the first `unmeasured` there is no IoU yet."""
    found = []
    for i in range(n):
        iou = 0.45 + 0.4 * (1 - 0.6**i)
        control = ControlFacts(
            mean_iou=iou,
            low=iou - 0.3 / (i + 1),
            high=min(1.0, iou + 0.25 / (i + 1)),
            iou={name: iou - 0.1 * k for k, name in enumerate(names)},
            n_tiles=i,
            n_specimens=2,
            ground=f"{i} random tiles, not trained on; other tiles of the same specimens are",
        )
        facts = RoundFacts(
            n_labelled_tiles=4 * i,
            n_done=4 * i,
            n_control=i,
            n_pool=3520,
            n_scored=3400,
            acquisition="clasp",
            model="run:0001",
            seconds_labelling=95.0 * i,
            control=control if i >= unmeasured else None,
            phases={
                name: PhaseFacts(fraction=f, low=f - 0.03, high=f + 0.03)
                for name, f in zip(names, (0.62, 0.305, 0.075), strict=False)
            },
            phases_ground="all 3,520 tiles as predicted, corrected by 5 random ones; 95 % intervals",
            chosen_minus_random=DifferenceFacts(difference=0.06, low=0.01, high=0.11, n_tiles=i, ground="as above")
            if i >= 3
            else None,
        )
        found.append(QueryRound(i + 1, "2026-11-22T10:00:00+00:00", facts.model_dump(mode="json")))
    return tuple(found)
