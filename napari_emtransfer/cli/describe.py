"""Results of a training, a prediction or an evaluation in words, each figure with the ground it stands on."""

from __future__ import annotations

from typing import Any

from napari_emtransfer.cli.output import describe_ground, format_iou, format_table


def describe_training(result: dict[str, Any]) -> str:
    """Score, interval, ground, folds, classes, calibration."""
    if "mean_iou" not in result:
        return f"Run {result.get('run', '')} stopped before its first validation."
    head = (
        f"Run {result['run']}: mean IoU {format_iou(result['mean_iou'])}{_interval(result)}, "
        f"{result['iterations']} iterations in {result['seconds']:.0f} s on {result['device']}"
    )
    replayed = [result["replay"]["words"]] if "replay" in result else []
    reason = [result["reason"]] if result.get("reason") else []
    return "\n".join(
        [head, *reason, *replayed, *_ground(result), *_folds(result), _iou_table(result), *_calibration(result)]
    )


def describe_prediction(result: dict[str, Any]) -> str:
    """What was written, how much, how fast."""
    lines = [str(p) for p in result.get("predictions", [])]
    if "seconds" in result:
        lines.append(f"{len(lines)} prediction(s), {result['megapixels']:.1f} megapixels in {result['seconds']:.1f} s")
    return "\n".join(lines)


def describe_evaluation(result: dict[str, Any]) -> str:
    """Score, interval, ground, classes, calibration."""
    if "mean_iou" not in result:
        return "Stopped; nothing was measured."
    head = f"mean IoU {format_iou(result['mean_iou'])}{_interval(result)}, {result['n_specimens']} specimen(s)"
    return "\n".join([head, *_ground(result), _iou_table(result), *_calibration(result)])


def _interval(result: dict[str, Any]) -> str:
    ci = result.get("ci95")
    return f" [{ci[0]:.3f}–{ci[1]:.3f}]" if ci else ""


def _ground(result: dict[str, Any]) -> list[str]:
    """The honest sentence about what was measured."""
    if result.get("note"):
        return [result["note"]]
    return [describe_ground(result["ground"])] if result.get("ground") else []


def _iou_table(result: dict[str, Any]) -> str:
    boundary = result.get("boundary_iou") or {}
    header = ["class", "IoU", *(["boundary IoU"] if boundary else [])]
    rows = [
        [name, format_iou(value), *([format_iou(boundary.get(name))] if boundary else [])]
        for name, value in (result.get("iou") or {}).items()
    ]
    return format_table([header, *rows])


def _folds(result: dict[str, Any]) -> list[str]:
    """One row for each fold."""
    folds = result.get("folds") or []
    rows = [[str(f["fold"]), ", ".join(f["held_out"]), format_iou(f["mean_iou"])] for f in folds]
    return [format_table([["fold", "held out", "IoU"], *rows])] if rows else []


def _calibration(result: dict[str, Any]) -> list[str]:
    """Errors of the probabilities without and with the temperature, and what both stand on."""
    found = result.get("calibration")
    if not found:
        return []
    rows = [
        ["calibration", "as trained", "with temperature"],
        ["class-wise ECE", f"{found['ece_before']:.3f}", f"{found['ece']:.3f}"],
        ["  off the boundaries", _known(found["ece_inside_before"]), _known(found["ece_inside"])],
        ["Brier score", f"{found['brier_before']:.3f}", f"{found['brier']:.3f}"],
    ]
    return [format_table(rows), f"Calibration: {found['note']}."]


def _known(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
