"""Recommend a strategy: count the labels, measure the gap between weights and micrographs, follow the rules."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from napari_emtransfer.core.config import Architecture, TrainConfig
from napari_emtransfer.core.data.intensity import Standardization
from napari_emtransfer.core.data.label_survey import LabelSurvey, survey
from napari_emtransfer.core.data.project import Project
from napari_emtransfer.core.data.resample import WorkingView
from napari_emtransfer.core.data.tiles import Window
from napari_emtransfer.core.errors import EMTransferError
from napari_emtransfer.core.nn import devices, store
from napari_emtransfer.core.nn.gap import MAX_WINDOWS, domain_gap
from napari_emtransfer.core.nn.ground import View
from napari_emtransfer.core.nn.trainer import initial_model
from napari_emtransfer.core.rates import FINE_TUNE_RATIO, learning_rate, with_weights
from napari_emtransfer.core.recommend import Recommendation, gap_class
from napari_emtransfer.core.recommend import recommend as follow_rules
from napari_emtransfer.worker.control import Emit, RunControl
from napari_emtransfer.worker.lineage import inherited_encoder_rate
from napari_emtransfer.worker.models import open_for, working_view
from napari_emtransfer.worker.protocol import RecommendRequest

_KEPT_GAPS: Final = 16
_ANY_CLASSES: Final = 2  # of the head, which is not looked at


def recommend(request: RecommendRequest, emit: Emit, control: RunControl) -> dict[str, Any]:  # noqa: ARG001 - as all handlers
    """Answer {strategy, reason, rule, source, gap, gap_class, n_tiles, n_specimens, config}.

    `strategy` is what the rules say, `config` the request's with what they say filled in where it says "auto": a
    strategy that the user has chosen stays. Weights that would have to be fetched first are not: their gap is unknown.
    """
    with Project.open(request.project) as project:
        advised = _advised(project, request.config, may_fetch=False)
    found = advised.recommendation
    return {
        "strategy": found.strategy,
        "reason": found.reason,
        "rule": found.rule.id,
        "source": found.rule.source,
        "gap": advised.gap,
        "gap_class": gap_class(advised.gap),
        "n_tiles": advised.labels.n_tiles,
        "n_specimens": len(advised.labels.specimens),
        "config": found.applied_to(request.config).model_dump(mode="json"),
    }


def resolve(project: Project, config: TrainConfig, held_out: Collection[str] = ()) -> tuple[TrainConfig, str]:
    """The configuration that a run with the strategy "auto" uses, and the sentence that says why.

    Any other strategy is the user's choice: it comes back as it is, with a sentence that says so. Weights that are not
    on this machine yet are fetched, as the training would do next. `config.weights` may be "run:ID". `held_out` are
    micrographs that the run's split keeps out of the training altogether.

    Raises
    ------
    EMTransferError
        As `core.nn.model.build_model` does, when there are no such weights or they do not fit.
    """
    if config.strategy != "auto":
        return config, f"The strategy {config.strategy} was chosen by hand."
    found = _advised(project, config, may_fetch=True, held_out=held_out).recommendation
    return found.applied_to(config), found.reason


@dataclass(frozen=True)
class _Advised:
    recommendation: Recommendation
    labels: LabelSurvey
    gap: float | None


def _advised(project: Project, config: TrainConfig, *, may_fetch: bool, held_out: Collection[str] = ()) -> _Advised:
    """The rules, applied to labels and micrographs that are not held out, be it by name in the configuration.

    An honest estimate must not have looked at what it is made on, not even to choose the strategy.
    """
    config = with_weights(config)
    without = _held_out(project, config).union(held_out)
    labels = survey(project, without=without)
    records = [r for r in project.micrographs() if r.stem not in without]
    # It is real ones that are to be segmented; synthetic ones may lie much nearer to what the weights have seen.
    stems = tuple(r.stem for r in [r for r in records if not r.synthetic] or records)
    gap = _gap(project, config, stems, may_fetch=may_fetch)
    # A run hands on the rate of the weights that it came from; else as a training would have it without a rule.
    rate = inherited_encoder_rate(project, config) or FINE_TUNE_RATIO * learning_rate(config)
    found = follow_rules(
        labels.n_tiles,
        len(labels.specimens),
        gap,
        config.weights != "none",
        rate,
        continued=config.weights.startswith("run:"),
        modality=project.settings.modality,
        tile_px=project.settings.tile_size_px,
    )
    return _Advised(found, labels, gap)


def _held_out(project: Project, config: TrainConfig) -> set[str]:
    """Micrographs that are named for anything but training; what a split by specimen will choose is not known yet."""
    known = {record.stem for record in project.micrographs()}
    if config.train:
        return known - set(config.train)
    if config.validation:
        return set(config.validation)
    parts = project.named_splits().get(config.split or "", {})
    train = {stem for part, stems in parts.items() if part.lower().startswith("train") for stem in stems}
    return {stem for stems in parts.values() for stem in stems} - train


def _gap(project: Project, config: TrainConfig, stems: tuple[str, ...], *, may_fetch: bool) -> float | None:
    weights = _located(project, config)
    if weights == "none" or not stems or not (may_fetch or _is_here(weights, config.encoder)):
        return None
    wanted = _Wanted(
        project.root,
        config.architecture,
        config.encoder,
        weights,
        _stamp(weights, config.encoder),
        _chosen(project, stems),
    )
    return _measured(wanted, config.compute.threads)


class _Wanted(NamedTuple):
    """What a gap depends on: not the labels, which change all the time. `chosen` is (stem, its look)."""

    root: Path
    architecture: Architecture
    encoder: str
    weights: str
    stamp: int
    chosen: tuple[tuple[str, str], ...]


@lru_cache(maxsize=_KEPT_GAPS)
def _measured(wanted: _Wanted, threads: int | None) -> float | None:
    """Kept for the next question of the window, which comes with every saved stroke."""
    devices.set_threads(threads)
    config = TrainConfig(architecture=wanted.architecture, encoder=wanted.encoder, weights=wanted.weights)
    with Project.open(wanted.root) as project:
        return domain_gap(initial_model(config, _ANY_CLASSES), list(_views(project, wanted.chosen)))


def _views(project: Project, chosen: tuple[tuple[str, str], ...]) -> Iterator[View]:
    """As a training would see them; a micrograph that cannot be opened now is told of elsewhere."""
    for stem, _ in chosen:
        with suppress(EMTransferError):
            micrograph = open_for(project, stem)
            view = working_view(micrograph, Standardization(), project.settings.working_pixel_size_nm)
            bar = micrograph.info_bar
            # Letters and lines are nothing that the pretraining data could resemble.
            yield view if bar is None or bar.y0 == 0 else _Above(view, view.to_working(bar).y0)


@dataclass(frozen=True)
class _Above:
    """The first rows of a view, without the info bar below them."""

    view: WorkingView
    n_rows: int

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W) in working pixels."""
        return self.n_rows, self.view.shape[1]

    def read(self, window: Window) -> NDArray[np.float32]:
        """Pixels of `window`, (h, w)."""
        return self.view.read(window)


def _chosen(project: Project, stems: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    places = np.unique(np.linspace(0, len(stems) - 1, min(MAX_WINDOWS, len(stems))).round().astype(int))
    records = {record.stem: record for record in project.micrographs()}
    found = [(records[stems[i]], project.scale(stems[i])) for i in places]
    return tuple((r.stem, f"{r.checksum} {r.frame} {scale} {r.info_bar}") for r, scale in found)


def _located(project: Project, config: TrainConfig) -> str:
    """The weights as the model builder understands them; "none" for a run without a checkpoint."""
    if not config.weights.startswith("run:"):
        return config.weights
    path = project.run(config.weights.removeprefix("run:")).starting_point()
    return "none" if path is None else str(path)


def _is_here(weights: str, encoder: str) -> bool:
    return Path(weights).is_file() or store.is_here(store.find(weights, encoder))


def _stamp(weights: str, encoder: str) -> int:
    """A file may be replaced under the same name."""
    path = Path(weights)
    if not path.is_file():
        path = store.path_of(store.find(weights, encoder))
    return path.stat().st_mtime_ns if path.is_file() else 0
