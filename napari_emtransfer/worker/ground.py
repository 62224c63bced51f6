"""How close a model has been to the ground it is measured on, and the sentence that says so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from napari_emtransfer.core.data.project import Project
from napari_emtransfer.core.data.run import Run
from napari_emtransfer.core.data.splits import Region, Split
from napari_emtransfer.core.errors import SplitError

TRAINING_TILE: Final = "training tile"
_CLOSENESS: Final = ("specimen", "micrograph", "block", TRAINING_TILE)
_PARTS: Final = ("train", "validation", "test")
_SAME_GROUND: Final = (
    "The best checkpoint was chosen on this same ground, which makes the figure a little too good; "
    "a test part would be clean."
)


@dataclass(frozen=True)
class Ground:
    """Regions to measure on. `closeness` is one of specimen, micrograph, block, training tile: what they share."""

    on: tuple[str, ...]
    regions: tuple[Region, ...]
    closeness: str
    note: str


def choose_ground(project: Project, run: Run, on: Sequence[str]) -> Ground:
    """Names of parts of the run's split, or stems → the ground, with what the run's models have seen of it.

    Raises
    ------
    SplitError
        When a name is neither; the hint lists the parts that exist.
    """
    split = run.split()
    stems = {record.stem for record in project.micrographs()}
    regions = tuple(dict.fromkeys(r for name in on for r in _regions(split, name, stems)))
    gone = sorted({r.micrograph for r in regions} - stems)
    if gone:
        raise SplitError(
            f"The micrograph {gone[0]!r} of this ground is no longer in the project.", "Add it again, or name others."
        )
    return describe(project, run, split, on, regions)


def describe(project: Project, run: Run, split: Split, on: Sequence[str], regions: tuple[Region, ...]) -> Ground:
    """The ground in words. Ground that an ancestor of the model was trained on counts as trained on."""
    specimens = {record.stem: record.specimen for record in project.micrographs()}
    own = _closest(regions, split.train, specimens)
    inherited = _closest(regions, inherited_regions(project, run), specimens)
    sentences = [split.note if tuple(on) == ("validation",) else _own_note(regions, own, specimens)]
    if _CLOSENESS.index(inherited) > _CLOSENESS.index(own):
        sentences.append(f"The weights it started from had been trained on {_SHARED[inherited]}")
    if "validation" in on:
        sentences.append(_SAME_GROUND)
    closeness = max(own, inherited, key=_CLOSENESS.index)
    return Ground(tuple(on), regions, closeness, " ".join(f"{s.rstrip('.')}." for s in sentences))


def inherited_regions(project: Project, run: Run) -> tuple[Region, ...]:
    """Training regions of the runs whose weights this one went on from."""
    regions: list[Region] = []
    known = {record.id for record in project.runs()}
    seen = {run.id}
    parent = _parent(run)
    while parent in known and parent not in seen:
        seen.add(parent)
        ancestor = project.run(parent)
        regions += ancestor.split().train
        parent = _parent(ancestor)
    return tuple(regions)


_SHARED: Final[Mapping[str, str]] = {
    TRAINING_TILE: "this very ground, so the figure is no measure of generalisation",
    "block": "other parts of the same micrographs, so expect optimism on other micrographs",
    "micrograph": "other micrographs of the same specimens, so expect optimism on new specimens",
    "specimen": "other specimens",
}


def _own_note(regions: Sequence[Region], closeness: str, specimens: Mapping[str, str]) -> str:
    if closeness == TRAINING_TILE:
        return "training tile – not a measure of generalisation: the model was trained on this ground"
    names = sorted({specimens[r.micrograph] for r in regions})
    shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
    return f"held out: specimen{'s' * (len(names) > 1)} {shown}; the model was trained on {_SHARED[closeness]}"


def _regions(split: Split, name: str, stems: set[str]) -> tuple[Region, ...]:
    if name in stems and name not in (*_PARTS, *split.other):
        return (Region(micrograph=name),)
    return split.part(name)


def _closest(regions: Sequence[Region], trained: Sequence[Region], specimens: Mapping[str, str]) -> str:
    pairs = (_relation(region, other, specimens) for region in regions for other in trained)
    return max(pairs, key=_CLOSENESS.index, default="specimen")


def _relation(region: Region, trained: Region, specimens: Mapping[str, str]) -> str:
    if region.micrograph == trained.micrograph:
        return TRAINING_TILE if _overlap(region, trained) else "block"
    same = specimens.get(region.micrograph) == specimens.get(trained.micrograph, object())
    return "micrograph" if same else "specimen"


def _overlap(first: Region, second: Region) -> bool:
    if first.window is None or second.window is None:
        return True
    return first.window.intersection(second.window) is not None


def _parent(run: Run) -> str | None:
    weights = str(run.config.get("weights", ""))
    return weights.removeprefix("run:") if weights.startswith("run:") else run.record.parent
