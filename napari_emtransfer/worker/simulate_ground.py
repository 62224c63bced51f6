"""A labelled data set to play on: imported into a project that lasts as long as the game, and divided in two."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple

import numpy as np

from napari_emtransfer.core.data.import_dataset import import_dataset
from napari_emtransfer.core.data.project import Project
from napari_emtransfer.core.data.project_records import MicrographRecord
from napari_emtransfer.core.errors import LabelError, SplitError
from napari_emtransfer.worker.control import Cancelled

# Parts of a split that are measured on, the best first.
_TEST_PARTS: Final = ("test", "val", "validation")


class Game(NamedTuple):
    """Micrographs that tiles are chosen on, and those that are measured on, by stem."""

    pool: tuple[str, ...]
    test: tuple[str, ...]


@contextmanager
def known_set(
    dataset: Path,
    tile_px: int,
    should_stop: Callable[[], bool],
    on_progress: Callable[[int, int], None],
    on_notice: Callable[[str, str], None],
) -> Iterator[Project]:
    """The data set as a project of its own, with tiles of `tile_px`; micrographs of different pixel sizes are at one.

    What is not labelled cannot be played with and is left out, which `on_notice` is told.

    Raises
    ------
    LabelError
        When the folder is no data set, or fewer than two classes are labelled in it.
    """

    def report(done: int, total: int, _stem: str) -> None:
        on_progress(done, total)
        if should_stop():
            raise Cancelled

    with (
        TemporaryDirectory(prefix="emtransfer-simulate-", ignore_cleanup_errors=True) as folder,
        Project.create(Path(folder) / "project", tile_size_px=tile_px) as project,
    ):
        found = import_dataset(project, dataset, progress=report)
        for stem, reason in found.skipped:
            on_notice(f"{stem} is left out: {reason.removesuffix('; added without labels').rstrip('.')}.", "")
        for record in project.micrographs():
            if not project.class_counts(record.stem)[1:].any():
                project.remove_micrograph(record.stem)
        _check_classes(project, dataset)
        yield project


def divided(project: Project, split: str | None, seed: int) -> Game:
    """A named split, else half of the specimens for each; of fewer than two specimens half of the micrographs.

    Raises
    ------
    SplitError
        When there is no such split, it has no part to measure on, or there is only one micrograph.
    """
    records = {record.stem: record for record in project.micrographs()}
    if split is not None:
        return _named(project, split)
    specimens = list(dict.fromkeys(record.specimen for record in records.values()))
    by_specimen = len(specimens) > 1
    groups = specimens if by_specimen else list(records)
    if len(groups) < 2:
        raise SplitError(
            f"The data set has one labelled micrograph, {next(iter(records))!r}: nothing is left to measure on.",
            "Add a micrograph of another specimen.",
        )
    order = [groups[i] for i in np.random.default_rng(seed).permutation(len(groups))]
    held = set(order[: len(order) // 2])
    test = tuple(stem for stem, record in records.items() if (record.specimen if by_specimen else stem) in held)
    return Game(tuple(stem for stem in records if stem not in test), test)


def describe(project: Project, split: str | None, games: Sequence[Game]) -> str:
    """On what was measured, in words."""
    records = project.micrographs()
    n_specimens = len({record.specimen for record in records})
    if split is not None:
        return f"Measured on the test part of the split {split!r}: {_shared(records, games[0])}"
    if n_specimens < 2:
        return "Measured on held-out micrographs of the one specimen that there is: other specimens may look different."
    return f"Measured on held-out specimens: half of {n_specimens}, others for each seed."


def _shared(records: Sequence[MicrographRecord], game: Game) -> str:
    specimen = {record.stem: record.specimen for record in records}
    both = sorted({specimen[stem] for stem in game.pool} & {specimen[stem] for stem in game.test})
    if both:
        return f"{len(game.test)} micrographs; {len(both)} specimen(s) of theirs are in the training part too."
    return f"{len(game.test)} micrographs of other specimens."


def _named(project: Project, split: str) -> Game:
    splits = project.named_splits()
    if split not in splits:
        raise SplitError(
            f"The data set has no split {split!r}.",
            f"It has {', '.join(map(repr, splits)) or 'none'}; or leave it out.",
        )
    parts = splits[split]
    held = next((part for part in _TEST_PARTS if parts.get(part)), None)
    if not parts.get("train") or held is None:
        raise SplitError(
            f"The split {split!r} has the labelled parts {', '.join(sorted(parts)) or 'none'}, but it takes 'train' to "
            "choose tiles on and 'test' to measure on.",
            "Take another split, or none: then half of the specimens are held out.",
        )
    return Game(tuple(parts["train"]), tuple(parts[held]))


def _check_classes(project: Project, dataset: Path) -> None:
    counts = sum(project.class_counts(record.stem)[1:] > 0 for record in project.micrographs())
    if int(np.count_nonzero(counts)) < 2:
        raise LabelError(
            f"The masks of {str(dataset)!r} show fewer than two classes, so there is nothing to tell apart.",
            "The background is a class, too: give it a value and a name.",
        )
