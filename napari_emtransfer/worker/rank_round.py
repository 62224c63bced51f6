"""One ranking from the labels to the queue, and what is known after it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from napari_emtransfer.core.active.rounds import RoundFacts
from napari_emtransfer.core.active.uncertainty import out_of_distribution
from napari_emtransfer.core.data.project import Project
from napari_emtransfer.core.data.queue_records import QueryRound, QueueEntry
from napari_emtransfer.core.events import ProgressMade
from napari_emtransfer.core.nn.live import LabelledPixels
from napari_emtransfer.core.nn.pool_head import PoolHead
from napari_emtransfer.worker.clock import Clock
from napari_emtransfer.worker.control import Cancelled, Emit, RunControl
from napari_emtransfer.worker.protocol import RankRequest
from napari_emtransfer.worker.rank_measure import Measurement, agreement
from napari_emtransfer.worker.rank_queue import Progress, Proposal, pool_of, propose
from napari_emtransfer.worker.rank_scores import Scores, score
from napari_emtransfer.worker.rank_seen import trained_on_tiles
from napari_emtransfer.worker.rank_state import Labelled, RankState, head_key

# Heads that must agree, each fitted on tiles drawn with replacement.
N_MEMBERS: Final = 4
NEIGHBOURS: Final = 1
# Scoring a few thousand tiles is not worth dividing.
_LEAST_SECONDS: Final = 1.0


@dataclass
class RankingRound:
    """The work on one request."""

    project: Project
    request: RankRequest
    state: RankState
    weights: str
    emit: Emit
    control: RunControl
    clock: Clock

    def do(self) -> dict[str, Any]:
        """Everything; the result without the seconds."""
        state, project = self.state, self.project
        labelled = state.read_labels(project, self.control.should_stop, self._tell("labelled tiles"))
        self._stop_if_asked()
        self.clock.lap("labels")
        self._sample(labelled)
        learnt = state.pixels(project, labelled, self.control.should_stop)
        self._stop_if_asked()
        self.clock.lap("features")
        head, scores = self._scored(labelled, learnt)
        labels = {entry.tile: entry.labels for entry in labelled}
        progress = Progress.of(project, state.table, labels, state.features.unreadable)
        rounds = project.active.rounds()
        known = self._counted(progress, scores, learnt)
        last = rounds[-1] if rounds else None
        same = RoundFacts.model_validate(last.facts) if last is not None else None
        repeated = same is not None and _learnt_alike(same, known)
        number = (last.number if last is not None else 0) + (not repeated)
        if same is not None and repeated:  # the time since then goes into the next tile
            known = known.model_copy(update={"seconds_labelling": same.seconds_labelling})
        proposal = self._proposed(progress, scores, learnt, number)
        waiting = self._queued(proposal)
        self.clock.lap("queue")
        measurement = None
        if head is not None:
            places = {tile: place for place, tile in enumerate(learnt)}
            seen = trained_on_tiles(project, self.weights, state.table, progress.sample.tiles.tolist())
            measurement = Measurement(state.features, head, places, labels, progress, project.schema.names, seen)
        facts, stop_set = known.model_copy(update={"acquisition": proposal.acquisition}), None
        if measurement is not None:
            facts, stop_set = self._measured(facts, scores, rounds[: len(rounds) - repeated], measurement)
        if not project.read_only:
            number = self._kept(facts, stop_set, number if repeated else None)
        self.clock.lap("measure")
        n_stale = 0 if head is None else int((state.features.sampled & ~scores.fresh).sum())
        return self._result(waiting, proposal, facts, number, n_stale)

    # ---- features and scores

    def _sample(self, labelled: Sequence[Labelled]) -> None:
        urgent = np.zeros(len(self.state.table), np.bool_)
        urgent[[entry.tile for entry in labelled]] = True
        request = self.request
        self.state.features.sample(
            self.project, request.first, request.seconds, urgent, self.control.should_stop, self._tell("tiles")
        )
        self._stop_if_asked()

    def _scored(
        self, labelled: Sequence[Labelled], learnt: dict[int, LabelledPixels]
    ) -> tuple[PoolHead | None, Scores]:
        """The head, where two classes are labelled, and what it says of all tiles with features."""
        state = self.state
        known = [entry for entry in labelled if entry.tile in learnt]
        classes = {int(c) for part in learnt.values() for c in np.unique(part.classes)}
        if len(classes) < 2:
            return None, Scores.empty(f"{self.weights}, no head", len(state.table), state.n_classes)
        source = state.features.source
        model = f"{self.weights} {head_key(source.fingerprint, known, state.table, state.n_classes, state.seed)}"
        head, members = state.head(model, lambda: self._fitted(list(learnt.values())), N_MEMBERS)
        self.clock.lap("fit")
        scores = state.scores(model, self.project)
        labels = {entry.tile: entry.labels.lattice for entry in labelled}
        wanted = self._unscored(scores)
        done = score(scores, wanted, state.features, head, members, labels, self._deadline(), self._tell("scores"))
        self._stop_if_asked()
        self._add_novelty(scores, np.array(list(learnt)))
        self.clock.lap("score")
        if not self.project.read_only and len(done):
            self.project.active.write_scores(scores.rows(state.table, done, state.features.embeddings()))
        self.clock.lap("write")
        return head, scores

    def _unscored(self, scores: Scores) -> NDArray[np.intp]:
        """Tiles that the model is to be asked about: those in view, those never scored, then the most uncertain."""
        table = self.state.table
        tiles = np.flatnonzero(self.state.features.sampled & ~scores.fresh)
        in_view = table.stems[tiles] == (self.request.first or "")
        uncertain = np.where(scores.known[tiles], np.nan_to_num(scores.entropy[tiles]), np.inf)
        return tiles[np.lexsort((-uncertain, ~in_view))]

    def _deadline(self) -> Callable[[], bool]:
        """Stops scoring when asked to, or when its time is over: the engine has other work, too."""
        if self.request.seconds is None:
            return self.control.should_stop
        end = time.perf_counter() + max(self.request.seconds, _LEAST_SECONDS)
        return lambda: self.control.should_stop() or time.perf_counter() >= end

    def _fitted(self, parts: Sequence[LabelledPixels]) -> PoolHead:
        state = self.state
        return PoolHead(parts, state.n_classes, n_networks=state.features.source.n_networks, seed=state.seed)

    def _add_novelty(self, scores: Scores, learnt: NDArray[np.intp]) -> None:
        there = self.state.features.sampled
        embeddings = self.state.features.embeddings()
        known = embeddings[learnt[there[learnt]]]
        scores.novelty[there] = out_of_distribution(embeddings[there], known, NEIGHBOURS)

    # ---- queue

    def _proposed(
        self, progress: Progress, scores: Scores, learnt: dict[int, LabelledPixels], query_round: int
    ) -> Proposal:
        features = self.state.features
        used = np.zeros(len(self.state.table), np.bool_)
        used[list(learnt)] = True
        pool = pool_of(progress, scores, features.sampled, features.embeddings(), used)
        names = self.project.schema.names
        return propose(progress, pool, scores, self.request.config, names, query_round)

    def _queued(self, proposal: Proposal) -> Sequence[QueueEntry]:
        if self.project.read_only:
            return proposal.entries
        return self.project.active.replace_waiting(proposal.entries)

    # ---- what is known

    def _kept(self, facts: RoundFacts, stop_set: NDArray[np.uint8] | None, number: int | None) -> int:
        """Store a round, or what more is known of round `number`; its number."""
        store, told = self.project.active, facts.model_dump(mode="json")
        if number is None:
            return store.add_round(told, stop_set).number
        store.replace_round(number, told, stop_set)
        return number

    def _counted(self, progress: Progress, scores: Scores, learnt: dict[int, LabelledPixels]) -> RoundFacts:
        """What needs no measuring."""
        time = self.project.active.labelling_time()
        return RoundFacts(
            n_labelled_tiles=len(learnt),
            n_done=time.n_done,
            n_control=sum(entry.state == "done" and entry.control for entry in progress.entries),
            n_pool=int((~progress.unreadable).sum()),
            n_scored=int(scores.known.sum()),
            model=scores.model,
            seconds_labelling=time.seconds,
        )

    def _measured(
        self, facts: RoundFacts, scores: Scores, before: Sequence[QueryRound], measurement: Measurement
    ) -> tuple[RoundFacts, NDArray[np.uint8]]:
        """The facts with what control tiles say, and the predictions that stability is judged by."""
        stop_set = measurement.stop_set()
        tiles = measurement.stop_tiles
        kappa, since = agreement(self.project, before, facts.n_labelled_tiles, stop_set, tiles)
        phases = measurement.phases(scores)
        measured = {
            "control": measurement.control_iou(),
            "chosen_minus_random": measurement.chosen_against_random(),
            "phases": phases.phases if phases is not None else {},
            "phases_ground": phases.ground if phases is not None else "",
            "kappa": kappa,
            "kappa_since": since,
            "stop_tiles": tiles,
        }
        return facts.model_copy(update=measured), stop_set

    def _result(
        self, waiting: Sequence[QueueEntry], proposal: Proposal, facts: RoundFacts, number: int, n_stale: int
    ) -> dict[str, Any]:
        features = self.state.features
        n_there, n_all = int(features.sampled.sum()), int((~features.unreadable).sum())
        return {
            "tiles": [self._told(entry) for entry in waiting],
            "acquisition": proposal.acquisition,
            "weights": self.weights,
            "n_tiles": n_all,
            "n_scored": n_there,
            "n_left": n_all - n_there + n_stale,
            "facts": facts.model_dump(mode="json"),
            "query_round": number,
        }

    def _told(self, entry: QueueEntry) -> dict[str, Any]:
        table = self.state.table
        place = table.index(*entry.tile)
        y0, x0, y1, x1 = (0, 0, 0, 0) if place is None else map(int, table.windows[place])
        return {
            "micrograph": entry.stem,
            "y": (y0 + y1) / 2,
            "x": (x0 + x1) / 2,
            "row": entry.row,
            "column": entry.column,
            "score": entry.score,
            "reason": entry.reason,
            "class": entry.class_name or None,
            "control": entry.control,
            "probability": entry.probability,
        }

    # ---- telling

    def _tell(self, what: str) -> Any:
        def tell(done: int, total: int) -> None:
            self.emit(ProgressMade(run_id=self.request.run_id, done=done, total=total, what=what))

        return tell

    def _stop_if_asked(self) -> None:
        if self.control.should_stop():
            raise Cancelled


def _learnt_alike(before: RoundFacts, now: RoundFacts) -> bool:
    """Whether the same labels and weights were known: the ranking was repeated."""
    return (before.model, before.n_done, before.n_control) == (now.model, now.n_done, now.n_control)
