"""Play the labelling of a data set whose masks are known, once per acquisition and seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from napari_emtransfer.core.active.acquisition import resolve
from napari_emtransfer.core.active.pool import TilePool
from napari_emtransfer.core.active.simulate import (
    Curve,
    budgets_of,
    mean_curve,
    paired_difference,
    play,
    tiles_to_target,
)
from napari_emtransfer.core.config import AUTO_WEIGHTS, TrainConfig
from napari_emtransfer.core.data.project import Project
from napari_emtransfer.core.errors import EMTransferError
from napari_emtransfer.core.events import NoticePosted, ProgressMade, RunStarted
from napari_emtransfer.core.nn import devices
from napari_emtransfer.core.nn.feature_cache import FeatureCache
from napari_emtransfer.core.nn.pool_features import PoolFeatures
from napari_emtransfer.worker.control import Cancelled, Emit, RunControl
from napari_emtransfer.worker.frozen import load_frozen, newest_weights
from napari_emtransfer.worker.protocol import SimulateRequest
from napari_emtransfer.worker.rank_features import TileFeatures
from napari_emtransfer.worker.rank_state import RankState
from napari_emtransfer.worker.simulate_ground import Game, describe, divided, known_set
from napari_emtransfer.worker.simulate_learner import HeadLearner, NetworkLearner

RANDOM: Final = "random"
_CROP_STEP_PX: Final = 32
_LEVEL: Final = 0.975


def simulate(request: SimulateRequest, emit: Emit, control: RunControl) -> dict[str, Any]:
    """Learning curves of `request.acquisitions` and of random tiles, on held-out ground of a known data set.

    Returns `curves` (acquisition → n_tiles, mean_iou over the seeds with low and high, and each seed's; area: the mean
    IoU over the budgets), `gains` (acquisition → area minus that of random, paired by seed, with its interval),
    `target` (the mean IoU that random ends with), `tiles_to_target`, `resolved` (what default stood for, in the order
    of use), `note` (what was measured on) and `classes`.

    Raises
    ------
    LabelError
        When the folder is no data set, or shows fewer than two classes.
    SplitError
        When nothing can be held out.
    WeightsError
        When the weights cannot be had.
    """
    devices.set_threads(request.config.compute.threads)
    progress = _telling(request, emit)

    def notice(words: str, hint: str) -> None:
        emit(NoticePosted(run_id=request.run_id, message=words, hint=hint))

    on_file = progress("files")
    with known_set(request.dataset, request.tile_px, control.should_stop, on_file, notice) as project:
        games = [divided(project, request.split, seed) for seed in request.seeds]
        names = list(dict.fromkeys((*request.acquisitions, RANDOM)))
        n_rounds = len(request.seeds) * len(names) * request.rounds
        device = devices.describe(devices.resolve_device(request.config.compute.device))
        emit(RunStarted(run_id=request.run_id, n_steps=n_rounds, device=device))
        work = _Simulation(request, project, names, n_rounds, control, progress)
        for seed, game in zip(request.seeds, games, strict=True):
            work.play(seed, game)
        note = describe(project, request.split, games)
        return work.result() | {"note": note, "classes": list(project.schema.names), "weights": work.weights}


def _telling(request: SimulateRequest, emit: Emit) -> Callable[[str], Callable[[int, int], None]]:
    def of(what: str) -> Callable[[int, int], None]:
        def tell(done: int, total: int) -> None:
            emit(ProgressMade(run_id=request.run_id, done=done, total=total, what=what))

        return tell

    return of


@dataclass
class _Simulation:
    """All games of one request."""

    request: SimulateRequest
    project: Project
    names: Sequence[str]
    n_rounds: int
    control: RunControl
    progress: Callable[[str], Callable[[int, int], None]]
    curves: dict[str, list[Curve]] = field(default_factory=dict)
    resolved: dict[str, list[str]] = field(default_factory=dict)
    n_played: int = 0

    def __post_init__(self) -> None:
        config = self.request.config
        self.weights, self.encoder = config.weights, config.encoder
        if self.weights == AUTO_WEIGHTS:
            self.weights, self.encoder = newest_weights(self.project, config.encoder)

    def play(self, seed: int, game: Game) -> None:
        """All acquisitions with one seed."""
        with TemporaryDirectory(prefix="emtransfer-simulate-", ignore_cleanup_errors=True) as folder:
            state = self._sampled(seed, game, Path(folder))
            for name in self.names:
                learner = self._learner(state, seed, game, Path(folder))
                pool = learner.unscored()
                curve = play(
                    name,
                    _Recording(learner, lambda seen, name=name: self._note(name, seen)),  # type: ignore[misc]
                    pool,
                    budgets_of(self.request.rounds, self.request.query_size),
                    seed=seed,
                    control_every=self.request.config.control_every,
                    spread=self.request.config.spread,
                    should_stop=self.control.should_stop,
                    on_round=lambda _n, _iou: self._tell_round(),
                )
                self._stop_if_asked()
                self.curves.setdefault(name, []).append(curve)

    def result(self) -> dict[str, Any]:
        """Curves, and what they say."""
        rivals = self.curves[RANDOM]
        target = mean_curve(rivals).mean_iou[-1] or 0.0
        reached = {name: tiles_to_target(mean_curve(found), target) for name, found in self.curves.items()}
        gains = {
            name: dict(zip(("difference", "low", "high"), _finite(paired_difference(found, rivals)), strict=True))
            for name, found in self.curves.items()
            if name != RANDOM
        }
        return {
            "curves": {name: _told(found) for name, found in self.curves.items()},
            "gains": gains,
            "target": target,
            "tiles_to_target": reached,
            "resolved": {name: used for name, used in self.resolved.items() if name == "default"},
        }

    # ---- inside

    def _sampled(self, seed: int, game: Game, folder: Path) -> RankState:
        """Features of all tiles; the norms are measured on micrographs of the pool alone."""
        records = [record for record in self.project.micrographs() if record.stem in game.pool]
        compute = self.request.config.compute
        frozen = load_frozen(self.project, self.weights, self.encoder, adapt_on=records)
        source = PoolFeatures(*frozen.networks(devices.resolve_device(compute.device)))
        cache = FeatureCache(folder / "features")
        features = TileFeatures(source, frozen.standardization, frozen.working_nm, cache, _raised, whole=True)
        features.refresh(self.project)
        stems = features.table.stems
        used = np.isin(stems, [*game.pool, *game.test])
        features.sample(self.project, None, None, used, self.control.should_stop, self.progress("tiles"))
        self._stop_if_asked()
        return RankState(features, n_classes=len(self.project.schema), seed=seed)

    def _learner(self, state: RankState, seed: int, game: Game, folder: Path) -> HeadLearner:
        request = self.request
        labelled = state.read_labels(self.project, self.control.should_stop, self.progress("labelled tiles"))
        labels = {entry.tile: entry for entry in labelled}
        table = state.table
        pool, test = (
            np.flatnonzero(np.isin(table.stems, stems) & table.shows_specimen) for stems in (game.pool, game.test)
        )
        known = (self.project, state, labels, pool, test, self.control.should_stop)
        if not request.iterations:
            return HeadLearner(*known)
        return NetworkLearner(*known, config=self._training(seed), folder=folder)

    def _training(self, seed: int) -> TrainConfig:
        request = self.request
        crop_px = max(_CROP_STEP_PX, request.tile_px // _CROP_STEP_PX * _CROP_STEP_PX)
        return TrainConfig(
            weights=self.weights,
            encoder=self.encoder,
            iterations=request.iterations,
            crop_px=crop_px,
            compute=request.config.compute.model_copy(update={"seed": seed}),
        )

    def _note(self, name: str, seen: TilePool) -> None:
        used = self.resolved.setdefault(name, [])
        if (meant := resolve(name, seen)) not in used:
            used.append(meant)

    def _tell_round(self) -> None:
        self.n_played += 1
        self.progress("rounds")(self.n_played, self.n_rounds)

    def _stop_if_asked(self) -> None:
        if self.control.should_stop():
            raise Cancelled


class _Recording:
    """A learner, and the pools that tiles are chosen from."""

    def __init__(self, learner: HeadLearner, seen: Callable[[TilePool], None]) -> None:
        self._learner, self._seen = learner, seen
        seen(learner.unscored())

    def learn(self, tiles: NDArray[np.intp]) -> bool:
        """As the learner."""
        return self._learner.learn(tiles)

    def look(self, pool: TilePool) -> TilePool:
        """As the learner."""
        found = self._learner.look(pool)
        self._seen(found)
        return found

    def measure(self) -> float:
        """As the learner."""
        return self._learner.measure()


def _told(curves: Sequence[Curve]) -> dict[str, Any]:
    mean = mean_curve(curves)
    low, high = zip(*_intervals(curves, len(mean.n_tiles)), strict=True)
    return {
        "n_tiles": list(mean.n_tiles),
        "mean_iou": list(mean.mean_iou),
        "low": list(low),
        "high": list(high),
        "seeds": {str(curve.seed): list(curve.mean_iou) for curve in curves},
        "area": float(np.mean([curve.area for curve in curves])),
    }


def _intervals(curves: Sequence[Curve], n: int) -> Iterator[tuple[float | None, float | None]]:
    """95 % interval (Student's t over seeds) of the mean IoU at each budget; None of a single seed."""
    from scipy.special import stdtrit

    for place in range(n):
        values = np.array([curve.mean_iou[place] or 0.0 for curve in curves])
        if len(values) < 2:
            yield None, None
            continue
        half = stdtrit(len(values) - 1, _LEVEL) * values.std(ddof=1) / np.sqrt(len(values))
        yield max(0.0, float(values.mean() - half)), min(1.0, float(values.mean() + half))


def _finite(values: Sequence[float]) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in values]


def _raised(error: EMTransferError) -> None:
    raise error
