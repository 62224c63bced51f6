"""What to train, and why, in a sentence with numbers; and what stands against training at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_emtransfer.core.config import TrainConfig
from napari_emtransfer.core.errors import LabelError, SplitError
from napari_emtransfer.session.runs import newest_to_go_on_from

if TYPE_CHECKING:
    from napari_emtransfer.core.data.project import Project
    from napari_emtransfer.core.data.run import Run

FEWEST_ITERATIONS, MOST_ITERATIONS = 100, 1000
FINE_TUNE_LEARNING_RATE = 3e-4


@dataclass(frozen=True)
class LabelSurvey:
    """What is labelled in a project: number of tiles with labels, the micrographs they lie on, and their specimens."""

    n_tiles: int
    stems: tuple[str, ...]
    specimens: tuple[str, ...]


def survey(project: Project) -> LabelSurvey:
    """Count what is labelled on all micrographs of a project, as it is on disk."""
    n_tiles, stems, specimens = 0, [], set()
    for record in project.micrographs():
        if not project.class_counts(record.stem)[1:].any():
            continue
        labels = project.annotations.read(record.stem)
        n_tiles += sum(bool(labels[tile.window.slices].any()) for tile in project.tile_grid(record.stem))
        stems.append(record.stem)
        specimens.add(record.specimen)
    return LabelSurvey(n_tiles, tuple(stems), tuple(sorted(specimens)))


def check_trainable(project: Project, config: TrainConfig) -> None:
    """Refuse what cannot be learnt from, before a process is started. Reads no more labels than it must.

    Raises
    ------
    LabelError
        When nothing is labelled, or one class only.
    SplitError
        When `config.split` names no split of the project, or a named micrograph is unknown.
    """
    names = project.schema.names
    labelled: set[str] = set()
    for record in project.micrographs():
        counts = project.class_counts(record.stem)[1:]
        labelled |= {name for name, count in zip(names, counts, strict=True) if count}
        if len(labelled) > 1:
            break
    if not labelled:
        raise LabelError(
            "Nothing is labelled yet, so there is nothing to learn from.",
            "Paint a few strokes of every class in the Label tab, or import masks.",
        )
    if len(labelled) == 1:
        raise LabelError(
            f"Only the class {labelled.pop()!r} is labelled; a network needs at least two classes to tell apart.",
            "Paint a few strokes of another class; the background is a class like any other.",
        )
    _check_names(project, config)


def propose(project: Project) -> tuple[TrainConfig, str]:
    """What the program proposes for the labels of a project, and the sentence that says why."""
    labels, earlier = survey(project), newest_to_go_on_from(project)
    fresh = int(np.clip(200 + 10 * labels.n_tiles, FEWEST_ITERATIONS, MOST_ITERATIONS))
    if earlier is None:
        config = TrainConfig(strategy="scratch", weights="none", iterations=fresh)
        return config, f"{_found(labels)} → train from scratch, {fresh} iterations.{_caveat(labels)}"
    iterations = max(FEWEST_ITERATIONS, fresh // 2)
    config = _going_on(project.run(earlier.id), iterations, labels)
    reached = "" if earlier.mean_iou is None else f" (mean IoU {earlier.mean_iou:.2f})"
    reason = f"{_found(labels)} → go on from run {earlier.id}{reached}, {iterations} iterations.{_caveat(labels)}"
    return config, reason


def _going_on(run: Run, iterations: int, labels: LabelSurvey) -> TrainConfig:
    """The same network on the same held-out ground: a ground that the earlier run has learnt from would flatter."""
    before = TrainConfig.model_validate(run.config)
    held_out = {r.micrograph for r in run.split().validation if r.window is None} if before.split is None else set()
    return before.model_copy(
        update={
            "strategy": "fine-tune",
            "weights": f"run:{run.id}",
            "iterations": iterations,
            "learning_rate": FINE_TUNE_LEARNING_RATE,
            "encoder_learning_rate": None,
            "train": (),
            "validation": tuple(sorted(held_out & set(labels.stems))),
        }
    )


def _found(labels: LabelSurvey) -> str:
    return f"{_count(labels.n_tiles, 'labelled tile')} on {_count(len(labels.specimens), 'specimen')}"


def _caveat(labels: LabelSurvey) -> str:
    """What the held-out IoU will not be able to say."""
    if len(labels.stems) == 1:
        return " Held out is a part of the only labelled micrograph, so the IoU says nothing about other ones."
    if len(labels.specimens) == 1:
        return " Held out is a micrograph of the only labelled specimen, so the IoU says nothing about other specimens."
    return ""


def _check_names(project: Project, config: TrainConfig) -> None:
    splits = project.named_splits()
    if config.split is not None and config.split not in splits:
        known = ", ".join(splits)
        raise SplitError(
            f"The project has no split named {config.split!r}.",
            f"Known are: {known}." if known else "It has none; leave the choice empty to split by specimen.",
        )
    stems = {record.stem for record in project.micrographs()}
    unknown = [stem for stem in (*config.train, *config.validation) if stem not in stems]
    if unknown:
        raise SplitError(
            f"The project has no micrograph named {unknown[0]!r}.", "Choose among the names in the Project tab."
        )


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" + ("" if n == 1 else "s")
