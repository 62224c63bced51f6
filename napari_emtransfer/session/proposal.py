"""What to train, and why, in a sentence with numbers; and what stands against training at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_emtransfer.core.config import TrainConfig
from napari_emtransfer.core.errors import LabelError, SplitError

if TYPE_CHECKING:
    from napari_emtransfer.core.data.project import Project
    from napari_emtransfer.core.data.run import RunRecord

FEWEST_ITERATIONS, MOST_ITERATIONS = 100, 1000
FINE_TUNE_LEARNING_RATE = 3e-4


@dataclass(frozen=True)
class LabelSurvey:
    """What is labelled in a project: pixels per class, tiles and micrographs with labels, and their specimens."""

    class_pixels: tuple[int, ...]
    n_tiles: int
    stems: tuple[str, ...]
    specimens: tuple[str, ...]

    @property
    def n_classes_labelled(self) -> int:
        """Number of classes with at least one labelled pixel."""
        return sum(count > 0 for count in self.class_pixels)


def survey(project: Project) -> LabelSurvey:
    """Count the labels of all micrographs of a project, as they are on disk."""
    n_classes = len(project.schema)
    pixels = np.zeros(n_classes + 1, np.int64)
    n_tiles, stems, specimens = 0, [], {}
    for record in project.micrographs():
        counts = np.asarray(project.annotations.class_counts(record.stem), np.int64)
        if not counts[1:].any():
            continue
        pixels[: counts.size] += counts[: pixels.size]
        labels = project.annotations.read(record.stem)
        n_tiles += sum(bool(labels[tile.window.slices].any()) for tile in project.tile_grid(record.stem))
        stems.append(record.stem)
        specimens[record.specimen] = None
    return LabelSurvey(tuple(int(p) for p in pixels[1:]), n_tiles, tuple(stems), tuple(specimens))


def check_trainable(project: Project, labels: LabelSurvey, config: TrainConfig) -> None:
    """Refuse what cannot be learnt from, before a process is started.

    Raises
    ------
    LabelError
        When nothing is labelled, or one class only.
    SplitError
        When `config.split` names no split of the project, or a named micrograph is unknown.
    """
    names = project.schema.names
    if not labels.stems:
        raise LabelError(
            "Nothing is labelled yet, and there is nothing to learn from.",
            "Paint a few strokes of every class in the Label tab, or import masks.",
        )
    if labels.n_classes_labelled < 2:
        only = next(name for name, count in zip(names, labels.class_pixels, strict=True) if count)
        raise LabelError(
            f"Only the class {only!r} is labelled; a network needs at least two classes to tell apart.",
            "Paint a few strokes of another class; the background is a class like any other.",
        )
    _check_names(project, config)


def propose(labels: LabelSurvey, earlier: RunRecord | None) -> tuple[TrainConfig, str]:
    """What the program proposes for these labels, and the sentence that says why.

    Parameters
    ----------
    labels
        What is labelled.
    earlier
        The newest run with a usable model, or None.
    """
    fresh = int(np.clip(200 + 10 * labels.n_tiles, FEWEST_ITERATIONS, MOST_ITERATIONS))
    if earlier is None:
        config = TrainConfig(strategy="scratch", weights="none", iterations=fresh)
        return config, f"{describe(labels)} → train from scratch, {fresh} iterations."
    iterations = max(FEWEST_ITERATIONS, fresh // 2)
    config = TrainConfig(
        strategy="fine-tune",
        weights=f"run:{earlier.id}",
        iterations=iterations,
        learning_rate=FINE_TUNE_LEARNING_RATE,
    )
    reached = "" if earlier.mean_iou is None else f" (mean IoU {earlier.mean_iou:.2f})"
    return config, f"{describe(labels)} → go on from run {earlier.id}{reached}, {iterations} iterations."


def describe(labels: LabelSurvey) -> str:
    """For example `18 labelled tiles on 3 specimens`."""
    return f"{_count(labels.n_tiles, 'labelled tile')} on {_count(len(labels.specimens), 'specimen')}"


def _check_names(project: Project, config: TrainConfig) -> None:
    splits = project.named_splits()
    if config.split is not None and config.split not in splits:
        raise SplitError(
            f"The project has no split named {config.split!r}.",
            f"Known are: {', '.join(splits) or 'none; leave the choice empty to split by specimen'}.",
        )
    known = {record.stem for record in project.micrographs()}
    unknown = [stem for stem in (*config.train, *config.validation) if stem not in known]
    if unknown:
        raise SplitError(
            f"The project has no micrograph named {unknown[0]!r}.", "Choose among the names in the Project tab."
        )


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" + ("" if n == 1 else "s")
