"""Repeat a run from what it wrote down: same configuration, frozen labels, split, weights and seed. No torch here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from safetensors import safe_open

from napari_emtransfer.core.config import TrainConfig
from napari_emtransfer.core.data.project import Project
from napari_emtransfer.core.data.readers import checksum
from napari_emtransfer.core.data.run import Run
from napari_emtransfer.core.data.storage import write_text
from napari_emtransfer.core.errors import EMTransferError, ProjectError, WeightsError
from napari_emtransfer.worker.protocol import TrainRequest
from napari_emtransfer.worker.provenance import (
    Provenance,
    fingerprint,
    provenance_of,
    unlabelled_fingerprints,
    weights_checksum,
)

_FILE: Final = "replay.json"
_MAX_NAMED: Final = 3


class ReplayError(EMTransferError):
    """A run that cannot be repeated, because something that it was made of is gone or has changed."""

    kind = "replay"


def replay_request(project: Project, ref: str, *, device: str = "auto") -> TrainRequest:
    """Make a new run with what the run `ref` was made of; → the request that trains it.

    The labels are those that the old run froze, not today's. `device` other than "auto" replaces the old one.

    Raises
    ------
    ProjectError
        When there is no such run, or it did not begin to train.
    ReplayError
        When micrographs, their scale, the classes or the modality are not what they were.
    WeightsError
        When the weights that it started from are gone or have changed.
    """
    old = project.run(ref)
    was = provenance_of(old)
    if was is None or not (old.root / "split.json").is_file():
        raise ProjectError(
            f"The run {old.id} has not written down what it is made of, so it cannot be repeated.",
            "Choose a run that has begun to train, or clone its settings for a new one.",
        )
    _check_data(project, old, was)
    _check_weights(project, old, was)
    config = _config(was, device)
    new = project.create_run("train", config.model_dump(mode="json"), parent=old.record.parent)
    for stem in was.data:
        old.labels.copy_to(new.labels, stem)
    new.write_split(old.split())
    write_text(new.root / _FILE, json.dumps({"of": old.id}))
    return TrainRequest(run_id=new.id, project=project.root, config=config)


def replayed_run(run: Run) -> str | None:
    """Id of the run that this one repeats; None for all others. Its labels and split are in its folder already."""
    path = run.root / _FILE
    return str(json.loads(path.read_text(encoding="utf-8"))["of"]) if path.is_file() else None


def made_of_before(project: Project, run: Run) -> Provenance | None:
    """What the repeated run was made of; None for a run that repeats none, or one that has been deleted since."""
    of = replayed_run(run)
    known = of in {record.id for record in project.runs()}
    return provenance_of(project.run(of)) if of is not None and known else None


def check_same_start(run: Run, was: Provenance, now: Provenance) -> None:
    """Once the weights are on this machine: refuse others than those that the repeated run started from.

    Raises
    ------
    WeightsError
        When they are not. Weights without a file of their own are taken on trust.
    """
    if was.parent_sha256 is not None and now.parent_sha256 not in (None, was.parent_sha256):
        raise _other_weights(replayed_run(run) or "", was)


def outcome(project: Project, run: Run) -> dict[str, Any]:
    """How the repetition came out: {of, identical, largest_difference, words}; empty for a run that repeats none."""
    of = replayed_run(run)
    if of is None or of not in {record.id for record in project.runs()}:
        return {}
    old = project.run(of)
    largest = _largest_difference(old, run)
    return {
        "of": of,
        "identical": largest == 0.0,
        "largest_difference": largest,
        "mean_iou_before": old.record.mean_iou,
        "words": _words(old, run, largest),
    }


def _config(was: Provenance, device: str) -> TrainConfig:
    """The old configuration with its very device and number of threads, which rounding depends on."""
    chosen = was.device.partition(" ")[0] or was.config.compute.device
    changes = {"device": chosen if device == "auto" else device, "threads": was.threads}
    compute = was.config.compute.model_copy(update=changes)
    # It was asked, or needed no asking, when the old run began.
    return was.config.model_copy(update={"compute": compute, "confirm_uniform_rate": True})


def _check_data(project: Project, old: Run, was: Provenance) -> None:
    known = {record.stem for record in project.micrographs()}
    gone = sorted({*was.data, *was.adaptation} - known)
    if gone:
        raise ReplayError(
            f"Run {old.id} cannot be repeated: {_listed(gone)} {_is(gone)} no longer in the project.",
            "Add the same files under the same names again.",
        )
    bare = unlabelled_fingerprints(project)
    changed = [stem for stem, digest in was.data.items() if _is_other(project, old, stem, digest)]
    changed += [stem for stem, digest in was.adaptation.items() if stem not in was.data and bare[stem] != digest]
    if changed:
        raise ReplayError(
            f"Run {old.id} cannot be repeated: pixels, scale, specimen or frozen labels of {_listed(changed)} "
            f"{_is(changed)} not what they were (data hash {was.data_hash[:8]}).",
            "Bring back the original files and pixel sizes, or clone the run's settings for a new run.",
        )
    now = (project.settings.working_pixel_size_nm, project.schema.names, project.settings.modality)
    before = (was.working_pixel_size_nm, was.classes, was.modality)
    for what, new, then in zip(("working pixel size in nm", "classes", "modality"), now, before, strict=True):
        if new != then:
            raise ReplayError(
                f"Run {old.id} cannot be repeated: the {what} of the project was {_shown(then)} and is {_shown(new)}.",
                f"Set it back to {_shown(then)}, or clone the run's settings for a new run.",
            )


def _is_other(project: Project, old: Run, stem: str, digest: str) -> bool:
    if fingerprint(project, old, stem) != digest:
        return True
    project.open_micrograph(stem)  # finds a file that was moved, or says where it was
    record = project.record(stem)
    return checksum(record.path) != record.checksum


def _check_weights(project: Project, old: Run, was: Provenance) -> None:
    """What can be told without fetching anything; `check_same_start` follows when the weights are there."""
    if was.config.weights.startswith("run:") or Path(was.config.weights).suffix:
        try:
            now = weights_checksum(project, was.config, old.split())
        except ProjectError:
            now = None
        if was.parent_sha256 != now:
            raise _other_weights(old.id, was)


def _other_weights(old_id: str, was: Provenance) -> WeightsError:
    known = f" (sha256 {was.parent_sha256[:8]}…)" if was.parent_sha256 else ""
    return WeightsError(
        f"Run {old_id} started from the weights {was.config.weights!r}{known}, which are gone or have changed.",
        "Bring that very file back (`emtransfer weights list` says where weights lie), or clone the run's settings.",
    )


def _largest_difference(old: Run, new: Run) -> float | None:
    """Over all weights of all best checkpoints; None where they cannot be compared."""
    pairs = [(p, new.root / p.relative_to(old.root)) for p in _best(old)]
    if not pairs or not all(b.is_file() for _, b in pairs):
        return None
    return max((d for a, b in pairs for d in _differences(a, b)), default=None)


def _best(run: Run) -> list[Path]:
    return sorted(p for p in (run.root / "best.safetensors", *run.root.glob("fold-*/best.safetensors")) if p.is_file())


def _differences(first: Path, second: Path) -> Iterator[float]:
    with safe_open(first, framework="numpy") as a, safe_open(second, framework="numpy") as b:
        if set(a.keys()) != set(b.keys()):
            yield float("inf")
            return
        for name in a.keys():  # noqa: SIM118 - not a mapping
            one, other = (np.asarray(f.get_tensor(name), np.float64) for f in (a, b))
            yield float(np.abs(one - other).max(initial=0.0)) if one.shape == other.shape else float("inf")


def _words(old: Run, new: Run, largest: float | None) -> str:
    if largest is None:
        return f"There is no checkpoint of {old.id} to compare with."
    if largest == 0.0:
        return f"Identical: every weight of the best checkpoint is bit for bit that of {old.id}."
    before, after = old.record.mean_iou, new.record.mean_iou
    scores = "" if before is None or after is None else f", IoU {after:.4f} against {before:.4f}"
    return f"Not identical to {old.id}: weights differ by up to {largest:.2g}{scores}. {_why(old, new)}".rstrip()


def _why(old: Run, new: Run) -> str:
    """What is known to make two runs differ."""
    was, now = provenance_of(old), provenance_of(new)
    if was is None or now is None:
        return ""
    reasons = [f"{name} {v} instead of {was.versions[name]}" for name, v in now.versions.items()
               if was.versions.get(name, v) != v]  # fmt: skip
    if was.device.partition(" ")[0] != now.device.partition(" ")[0]:
        reasons.append(f"{now.device} instead of {was.device}")
    elif not now.device.startswith("cpu"):
        reasons.append("accelerators add in an order that differs from run to run")
    if was.threads != now.threads:
        reasons.append(f"{now.threads} threads instead of {was.threads}")
    if was.config.minutes is not None:
        reasons.append("it was limited in minutes, so its rates followed the clock")
    if _was_stopped(old):
        reasons.append("it was stopped early by hand")
    return f"Known reasons: {'; '.join(reasons)}." if reasons else ""


def _was_stopped(run: Run) -> bool:
    path = run.root / "result.json"
    return path.is_file() and run.result().get("ended") == "stopped"


def _listed(stems: list[str]) -> str:
    more = len(stems) - _MAX_NAMED
    return ", ".join(map(repr, stems[:_MAX_NAMED])) + (f" and {more} more" if more > 0 else "")


def _is(stems: list[str]) -> str:
    return "is" if len(stems) == 1 else "are"


def _shown(value: Any) -> str:
    return ", ".join(value) if isinstance(value, tuple) else str(value if value is not None else "none")
