"""What the head that ranks has learnt from the first tiles of a queue, on specimens that it has never seen."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_emtransfer.core.config import RankConfig
from napari_emtransfer.core.data.project import Project
from napari_emtransfer.core.evaluate.confusion import ConfusionMatrix
from napari_emtransfer.core.nn.feature_cache import FeatureCache
from napari_emtransfer.core.nn.pool_head import PoolHead
from napari_emtransfer.worker import rank_handler
from napari_emtransfer.worker.rank_features import TileFeatures
from napari_emtransfer.worker.rank_state import RankState


def held_out_iou(
    root: Path, folder: Path, stems: Sequence[str], masks: dict[str, NDArray[np.uint8]], budgets: Sequence[int]
) -> dict[int, float]:
    """Class-mean IoU on all lattice pixels of `stems`, by the head learnt from the first n done tiles of the queue.

    Parameters
    ----------
    root
        The project that was labelled.
    folder
        The set that it comes from.
    stems
        Its micrographs that are not in the project.
    budgets
        The n.
    """
    with (
        tempfile.TemporaryDirectory() as temporary,
        Project.open(root) as project,
        _project_of(Path(temporary) / "held-out", folder, stems, project) as other,
    ):
        state, _ = rank_handler._state(project, RankConfig())
        known = state.features
        cache = FeatureCache(Path(temporary) / "cache")
        tested = TileFeatures(known.source, known.standardization, known.working_nm, cache, _raise)
        tested.refresh(other)
        tested.sample(other, None, None, np.zeros(len(tested.table), np.bool_), lambda: False, lambda *_: None)
        learnt = _pixels(state, project)
        return {n: _iou(PoolHead(learnt[:n], state.n_classes, seed=0), tested, masks, state) for n in budgets}


def _project_of(root: Path, folder: Path, stems: Sequence[str], like: Project) -> Project:
    paths = {path.stem: path for path in (folder / "images").iterdir()}
    sizes = json.loads((folder / "dataset.json").read_text()).get("pixel_size_nm") or {}
    project = Project.create(root, classes=like.schema.names, tile_size_px=like.settings.tile_size_px)
    for stem in stems:
        project.add_micrograph(paths[stem], pixel_size_nm=sizes.get(stem))
    return project


def _pixels(state: RankState, project: Project) -> list:
    """Labelled pixels of the tiles that are done, in the order in which they were."""
    state.features.refresh(project)
    labelled = state.read_labels(project, lambda: False, lambda *_: None)
    found = state.pixels(project, labelled, lambda: False)
    ended = sorted(project.active.queue(("done",)), key=lambda entry: entry.ended or "")
    tiles = [state.table.index(*entry.tile) for entry in ended]
    return [found[tile] for tile in tiles if tile in found]


def _iou(head: PoolHead, tested: TileFeatures, masks: dict[str, NDArray[np.uint8]], state: RankState) -> float:
    table, total = tested.table, ConfusionMatrix.zeros(state.n_classes)
    for tile in range(len(table)):
        number = int(table.micrographs[tile])
        y, x = table.native_pixels(number, tested.lattice(tile)).T
        truth = masks[table.records[number].stem][y, x]
        predicted = head.samples(tested.features([tile])[0], [head.solve()]).mean(axis=0).argmax(axis=0) + 1
        total += ConfusionMatrix.from_masks(truth[None], predicted[None].astype(np.uint8), state.n_classes)
    return round(float(total.mean_iou()), 3)


def _raise(error: Exception) -> None:
    raise error
