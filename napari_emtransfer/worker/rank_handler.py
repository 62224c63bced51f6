"""Score every tile that is to be labelled, queue the best, and measure on those that were drawn at random."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, NamedTuple

from napari_emtransfer.core.config import AUTO_WEIGHTS, RankConfig
from napari_emtransfer.core.data.project import Project
from napari_emtransfer.core.data.project_records import MicrographRecord
from napari_emtransfer.core.errors import EMTransferError, ProjectError
from napari_emtransfer.core.events import NoticePosted, RunStarted
from napari_emtransfer.core.nn import devices
from napari_emtransfer.core.nn.feature_cache import FeatureCache
from napari_emtransfer.core.nn.pool_features import PoolFeatures
from napari_emtransfer.worker.clock import Clock
from napari_emtransfer.worker.control import Emit, RunControl
from napari_emtransfer.worker.frozen import RUN_PREFIX, load_frozen, newest_weights, real_ones, weights_stamp
from napari_emtransfer.worker.live_handler import FEATURES_FOLDER
from napari_emtransfer.worker.protocol import RankRequest
from napari_emtransfer.worker.rank_features import TileFeatures
from napari_emtransfer.worker.rank_round import RankingRound
from napari_emtransfer.worker.rank_state import RankState

# Beside the features of the live head, which are many times larger, and come and go with what somebody looks at.
TILES_FOLDER: Final = "tiles"
_FEW: Final = 4
_NOT_KEPT: Final = "Features are not kept: the next ranking computes them again."
_READ_ONLY_HINT: Final = "Copy the project to a folder that you may write to."


class _Key(NamedTuple):
    """What the kept state depends on; anything else is looked up at each request."""

    root: Path
    config: RankConfig
    n_classes: int
    working_nm: float | None
    tile_px: int
    weights: tuple[tuple[str, int, int], ...]
    adapted_on: tuple[MicrographRecord, ...]


class _Kept:
    """The state of the process: that of the project and weights asked for last."""

    key: _Key | None = None
    state: RankState | None = None
    folder: TemporaryDirectory[str] | None = None
    faults: list[tuple[str, str]] = []  # noqa: RUF012 - one per process, as the rest; (sentence, hint)


def forget() -> None:
    """Drop what is kept; the next request starts afresh."""
    _Kept.key, _Kept.state = None, None
    if _Kept.folder is not None:
        _Kept.folder.cleanup()
        _Kept.folder = None
    _Kept.faults.clear()


def rank(request: RankRequest, emit: Emit, control: RunControl) -> dict[str, Any]:
    """Score all tiles, write scores and queue, and measure on control tiles.

    Only what changed since the last request is read and computed. Returns `tiles` (what waits to be labelled, in this
    order), `acquisition` (what was used), `n_tiles` (of real micrographs that can be opened), `n_scored` (of these,
    with features), `n_left` (without, or not scored by the newest head yet), `seconds` of each step, `facts`
    (`core.active.rounds.RoundFacts`) and `query_round`.

    Raises
    ------
    ProjectError
        When the project has no micrograph that could be labelled, or there is no such run.
    WeightsError
        When the weights cannot be had.
    """
    clock = Clock()
    devices.set_threads(request.config.compute.threads)
    with Project.open(request.project) as project:
        _check_micrographs(project)
        state, weights = _state(project, request.config)
        state.features.refresh(project)
        clock.lap("weights")
        emit(RunStarted(run_id=request.run_id, n_steps=len(state.table)))
        try:
            result = RankingRound(project, request, state, weights, emit, control, clock).do()
        finally:
            if project.read_only:
                _Kept.faults.append((f"Scores and queue are not kept: {project.read_only}.", _READ_ONLY_HINT))
            _tell_faults(request, emit)
    return result | {"seconds": clock.seconds()}


def _tell_faults(request: RankRequest, emit: Emit) -> None:
    for words, hint in _Kept.faults:
        emit(NoticePosted(run_id=request.run_id, message=words, hint=hint))
    _Kept.faults.clear()


def _check_micrographs(project: Project) -> None:
    if not any(not record.synthetic for record in project.micrographs()):
        raise ProjectError(
            f"The project {project.root.name!r} has no micrograph whose tiles could be labelled.",
            "Add micrographs first: emtransfer add PROJECT PATH.",
        )


def _state(project: Project, config: RankConfig) -> tuple[RankState, str]:
    """The state kept from the last request, or a fresh one where weights, classes or sizes are others; the weights."""
    weights, encoder = config.weights, config.encoder
    if weights == AUTO_WEIGHTS:
        weights, encoder = newest_weights(project, encoder)
    settings = project.settings
    adapted_on = () if weights.startswith(RUN_PREFIX) else _lasting(real_ones(project.micrographs()))
    key = _Key(
        project.root,
        RankConfig(weights=weights, encoder=encoder, compute=config.compute),
        len(project.schema),
        settings.working_pixel_size_nm,
        settings.tile_size_px,
        weights_stamp(project, weights, folds=True),
        tuple(adapted_on),
    )
    if _Kept.state is None or _Kept.key != key:
        forget()
        _Kept.key, _Kept.state = key, _fresh(project, key)
    return _Kept.state, weights


def _fresh(project: Project, key: _Key) -> RankState:
    config = key.config
    frozen = load_frozen(project, config.weights, config.encoder, folds=True, adapt_on=key.adapted_on)
    source = PoolFeatures(*frozen.networks(devices.resolve_device(config.compute.device)))
    cache = FeatureCache(_folder(project), on_fault=_cannot_keep)
    features = TileFeatures(source, frozen.standardization, frozen.working_nm, cache, _unread)
    return RankState(features, n_classes=key.n_classes, seed=config.compute.seed)


def _folder(project: Project) -> Path:
    if not project.read_only:
        return project.root / FEATURES_FOLDER / TILES_FOLDER
    _Kept.folder = TemporaryDirectory(prefix="emtransfer-", ignore_cleanup_errors=True)
    return Path(_Kept.folder.name)


def _cannot_keep(words: str) -> None:
    _Kept.faults.append((words, _NOT_KEPT))


def _unread(error: EMTransferError) -> None:
    _Kept.faults.append((f"Its tiles are left out. {error.message}", error.hint))


def _lasting(records: Sequence[MicrographRecord]) -> Sequence[MicrographRecord]:
    """The first 4, 8, 16, …: with those that norms are measured on all features change.

    So that happens when there are twice as many micrographs, and not whenever one is added.
    """
    return records if len(records) <= _FEW else records[: 2 ** (len(records).bit_length() - 1)]
