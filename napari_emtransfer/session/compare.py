"""Two to four runs side by side: their curves, the settings in which they differ, and their IoU with its ground."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from napari_emtransfer.core.config import TrainConfig
from napari_emtransfer.core.data.run import RunRecord
from napari_emtransfer.core.errors import EMTransferError, ProjectError
from napari_emtransfer.session.curves import replayed
from napari_emtransfer.session.state import Curves

if TYPE_CHECKING:
    from napari_emtransfer.core.data.project import Project
    from napari_emtransfer.core.data.run import Run

FEWEST, MOST = 2, 4
_UNLISTED: Final = frozenset({"confirm_uniform_rate"})  # says how a run was started, not what it did


@dataclass(frozen=True)
class ComparedRun:
    """One of the runs. `iou`, `ci95`, `ground` and `note` are of its held-out ground; `held_out` names that ground."""

    run_id: str
    status: str
    curves: Curves
    mean_iou: float | None = None
    iou: Mapping[str, float | None] | None = None
    ci95: tuple[float, float] | None = None
    ground: str = ""
    note: str = ""
    held_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """`settings` are (name, one value per run) in which the runs differ; `caution` says why the IoU may not compare."""

    runs: tuple[ComparedRun, ...]
    settings: tuple[tuple[str, tuple[str, ...]], ...]
    caution: str = ""


def compare(project: Project, run_ids: Sequence[str]) -> Comparison:
    """Read the runs from their folders; oldest first. May be called on any thread.

    Raises
    ------
    ProjectError
        When there are fewer than two or more than four of them, or one is unknown.
    """
    if not FEWEST <= len(run_ids) <= MOST:
        raise ProjectError(f"{len(run_ids)} runs were chosen to compare.", f"Choose {FEWEST} to {MOST} in the list.")
    records = {record.id: record for record in project.runs()}
    chosen = sorted((project.run(run_id) for run_id in run_ids), key=lambda run: records[run.id].created)
    runs = tuple(_compared(run, records[run.id]) for run in chosen)
    return Comparison(runs, differing_settings([run.config for run in chosen]), caution(runs))


def differing_settings(configs: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Settings that are not the same in all configurations, as (name, value in each), in the order of the fields."""
    flat = [_flat(config) for config in configs]
    rows = [(name, tuple(_shown(config.get(name)) for config in flat)) for name in _field_names()]
    return tuple((name, values) for name, values in rows if len(set(values)) > 1)


def caution(runs: Sequence[ComparedRun]) -> str:
    """Why the figures cannot be set against each other as they are; empty where they can."""
    measured = [run for run in runs if run.mean_iou is not None]
    if len({run.held_out for run in measured if run.held_out}) > 1:
        return (
            "The runs were not judged on the same held-out ground, so part of the difference between their IoU is that "
            "between the grounds."
        )
    intervals = [run.ci95 for run in measured if run.ci95 is not None]
    if len(intervals) > 1 and max(low for low, _ in intervals) <= min(high for _, high in intervals):
        return "The intervals overlap: on this ground the difference may be chance."
    if len(measured) > 1 and len(intervals) < len(measured):
        return "Without an interval for each run nobody can tell whether the difference is chance."
    return ""


def _compared(run: Run, record: RunRecord) -> ComparedRun:
    try:
        result = run.result()
    except EMTransferError:
        result = {}
    ci95 = result.get("ci95")
    return ComparedRun(
        run_id=run.id,
        status=record.status,
        curves=replayed(run.id, run.events()),
        mean_iou=result.get("mean_iou", record.mean_iou),
        iou=result.get("iou"),
        ci95=(float(ci95[0]), float(ci95[1])) if ci95 else None,
        ground=str(result.get("ground", "")),
        note=str(result.get("note", "")),
        held_out=_held_out(run),
    )


def _held_out(run: Run) -> tuple[str, ...]:
    try:
        regions = run.split().part("validation")
    except EMTransferError:
        return ()
    return tuple(sorted(r.micrograph + (f" {r.window.slices}" if r.window else "") for r in regions))


def _field_names() -> list[str]:
    fields = TrainConfig()
    own = [name for name in TrainConfig.model_fields if name not in {"compute", *_UNLISTED}]
    return [*own, *type(fields.compute).model_fields]


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    defaults = TrainConfig().model_dump(mode="json")  # a run of an earlier version lacks the newer fields
    return {**defaults, **defaults["compute"], **config, **config.get("compute", {})}


def _shown(value: Any) -> str:
    match value:
        case None:
            return "–"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:g}"
        case list() | tuple():
            return ", ".join(map(str, value)) or "–"
    return str(value)
