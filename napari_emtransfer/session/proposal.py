"""What to train, and why, in a sentence with numbers; and what stands against training at all.

The strategy for weights that are to be transferred is left open ("auto"): it hangs on the measured domain gap, which
`AdviceController` asks the engine for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from napari_emtransfer.core.config import AUTO_WEIGHTS, TrainConfig
from napari_emtransfer.core.data.label_survey import LabelSurvey, survey
from napari_emtransfer.core.errors import LabelError, SplitError
from napari_emtransfer.session.live_weights import weights_at_hand
from napari_emtransfer.session.runs import ground_to_keep, newest_to_go_on_from

if TYPE_CHECKING:
    from napari_emtransfer.core.data.project import Project
    from napari_emtransfer.core.data.run import RunRecord

FEWEST_ITERATIONS, MOST_ITERATIONS = 100, 1000
FINE_TUNE_LEARNING_RATE = 3e-4
BETWEEN_ROUNDS: Final[Literal["continue", "fresh"]] = "continue"
"""With new labels, go on from the newest run, or begin again from the pretrained weights.

Measured by `benchmarks.rounds`: see ARCHITECTURE, "Between rounds".
"""
# What the rules fill in; of an earlier run they would be answers to another question.
_UNDECIDED: Final = {
    "strategy": "auto",
    "normalization": "auto",
    "freeze": "none",
    "encoder_learning_rate": None,
    "confirm_uniform_rate": False,
}


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
    labels, earlier, at_hand = survey(project), newest_to_go_on_from(project), weights_at_hand()
    fresh = int(np.clip(200 + 10 * labels.n_tiles, FEWEST_ITERATIONS, MOST_ITERATIONS))
    if earlier is not None and BETWEEN_ROUNDS == "continue":
        return _go_on(project, earlier, labels, max(FEWEST_ITERATIONS, fresh // 2))
    if at_hand is None:
        config = TrainConfig(strategy="scratch", weights="none", iterations=fresh)
        why = "no pretrained weights are on this machine"
        return config, f"{_found(labels)}, {why} → train from scratch, {fresh} iterations.{_caveat(labels)}"
    # "auto" keeps meaning the right thing should the user choose another encoder.
    weights = AUTO_WEIGHTS if at_hand.family == "bundled" else at_hand.name
    config = TrainConfig(weights=weights, encoder=at_hand.encoder or "", iterations=fresh)
    return config, f"{_found(labels)} → transfer from {at_hand.name}, {fresh} iterations.{_caveat(labels)}"


def _go_on(project: Project, earlier: RunRecord, labels: LabelSurvey, iterations: int) -> tuple[TrainConfig, str]:
    """The same network on the same held-out ground: a ground that the earlier run has learnt from would flatter."""
    run = project.run(earlier.id)
    before = TrainConfig.model_validate(run.config)
    held_out = ground_to_keep(project, run)
    config = before.model_copy(
        update={
            **_UNDECIDED,
            "weights": f"run:{run.id}",
            "iterations": iterations,
            "learning_rate": FINE_TUNE_LEARNING_RATE,
            "train": (),
            "validation": tuple(sorted(held_out & set(labels.stems))),
        }
    )
    reached = "" if earlier.mean_iou is None else f" (mean IoU {earlier.mean_iou:.2f})"
    return (
        config,
        f"{_found(labels)} → go on from run {run.id}{reached}, {iterations} iterations.{_caveat(labels)}",
    )


def _found(labels: LabelSurvey) -> str:
    found = f"{_count(labels.n_tiles, 'labelled tile')} on {_count(len(labels.specimens), 'specimen')}"
    n_synthetic = len(labels.specimens) - len(labels.real_specimens)
    return f"{found}, {n_synthetic} of them synthetic" if n_synthetic else found


def _caveat(labels: LabelSurvey) -> str:
    """What the held-out IoU will not be able to say."""
    if labels.stems and not labels.real_stems:
        return " Held out is a part of the synthetic micrographs, so the IoU says nothing about real ones."
    if len(labels.real_stems) == 1:
        return " Held out is a part of the only labelled micrograph, so the IoU says nothing about other ones."
    if len(labels.real_specimens) == 1:
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
