"""Numbers for the screen, each with the ground it stands on."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_emtransfer.core.data.labels import UNLABELLED
from napari_emtransfer.core.evaluate.confusion import ConfusionMatrix
from napari_emtransfer.core.events import ValidationEnded
from napari_emtransfer.session.state import ModelReadout, Readouts, TileGround, TileReadout

if TYPE_CHECKING:
    from napari_emtransfer.core.data.run import Run


def model_readout(run: Run, synthetic: Collection[str] = ()) -> ModelReadout:
    """The IoU of a run on its held-out ground: its stored result, or its best validation where it was ended early.

    `synthetic` names the micrographs of the project that are.
    """
    result = run.result() if (run.root / "result.json").is_file() else _best_validation(run)
    ci95 = result.get("ci95")
    return ModelReadout(
        run_id=run.id,
        mean_iou=result.get("mean_iou"),
        iou=dict(result.get("iou") or {}),
        ci95=(float(ci95[0]), float(ci95[1])) if ci95 else None,
        ground=str(result.get("ground") or ""),
        note=str(result.get("note") or ""),
        labelled_fraction=result.get("labelled_fraction"),
        synthetic=bool(result.get("micrographs")) and set(result["micrographs"]) <= set(synthetic),
    )


def tile_readout(
    prediction: NDArray[np.uint8], labels: NDArray[np.uint8], names: Sequence[str], ground: TileGround, source: str = ""
) -> TileReadout | None:
    """Prediction and labels of one tile, (h, w) label values → readout; None while nothing is predicted there.

    Pixels without a prediction are left out, so a tile can be read while it is being predicted.
    """
    predicted = prediction != UNLABELLED
    if not predicted.any():
        return None
    truth = np.where(predicted, labels, UNLABELLED)
    counts = np.bincount(prediction[predicted], minlength=len(names) + 1)[1:]
    confusion = ConfusionMatrix.from_masks(truth, prediction, len(names))
    return TileReadout(
        iou={name: _known(value) for name, value in zip(names, confusion.iou(), strict=True)},
        mean_iou=_known(confusion.mean_iou()),
        labelled_fraction=float(np.mean(labels != UNLABELLED)),
        ground=ground,
        phase_fractions={name: float(n) / float(counts.sum()) for name, n in zip(names, counts, strict=True)},
        source=source,
    )


def text_overlay(readouts: Readouts) -> str:
    """One line for the canvas, as `live head · IoU matrix .96 · pore .88 — 34 % of this tile labelled, held-out`."""
    tile = readouts.tile
    if tile is None:
        return ""
    source = f"{tile.source} · " if tile.source else ""
    if tile.labelled_fraction == 0:
        phases = " · ".join(f"{name} {percent(value)}" for name, value in tile.phase_fractions.items())
        return f"{source}{phases} — no labels on this tile"
    classes = " · ".join(f"{name} {short(value)}" for name, value in tile.iou.items())
    ground = f"{tile.ground}, synthetic" if tile.synthetic else tile.ground
    return f"{source}IoU {classes} — {percent(tile.labelled_fraction)} of this tile labelled, {ground}"


def short(value: float | None) -> str:
    """0.884 → `.88`, 1 → `1.00`, None → `–`."""
    if value is None:
        return "–"
    text = f"{value:.2f}"
    return text[1:] if text.startswith("0") else text


def percent(fraction: float) -> str:
    """0.34 → `34 %`; small fractions keep what tells them from nothing."""
    if 0 < fraction < 0.01:
        return "< 1 %"
    return f"{100 * fraction:.0f} %"


def _best_validation(run: Run) -> dict[str, Any]:
    best = [event for event in run.events() if isinstance(event, ValidationEnded) and event.is_best]
    return best[-1].model_dump(include={"mean_iou", "iou", "ground"}) if best else {}


def _known(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
