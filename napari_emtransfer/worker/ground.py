"""How close a model has been to the ground it is measured on, and the sentence that says so."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from napari_emtransfer.core.data.project import Project
from napari_emtransfer.core.data.run import Run
from napari_emtransfer.core.data.split import Region, Split, stems_of
from napari_emtransfer.core.data.split_notes import synthetic_note
from napari_emtransfer.core.errors import SplitError
from napari_emtransfer.worker.lineage import inherited, trained_on

TRAINING_TILE: Final = "training tile"
_CLOSENESS: Final = ("specimen", "micrograph", "block", TRAINING_TILE)
_PARTS: Final = ("train", "validation", "test")
_SAME_GROUND: Final = (
    "The best checkpoint was chosen on this same ground, which makes the figure a little too good; "
    "a test part would be clean."
)


@dataclass(frozen=True)
class Ground:
    """Regions to measure on. `closeness` is one of specimen, micrograph, block, training tile: what they share.

    `fold_of` maps the micrographs that a fold held out to that fold: its network, which never saw them, measures them.
    `is_validation` is true where any of it, by whatever name, is ground that the run's temperature was fitted on.
    """

    on: tuple[str, ...]
    regions: tuple[Region, ...]
    closeness: str
    note: str
    is_validation: bool = False
    fold_of: Mapping[str, int] = field(default_factory=dict)


def choose_ground(project: Project, run: Run, on: Sequence[str], others: Sequence[Run] = ()) -> Ground:
    """Names of parts of the run's split, or stems → the ground, with what the run's models have seen of it.

    Where `others` are averaged with the run, what they were trained on counts too, and folds are not told apart.

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
    if not split.folds or others:
        return describe(project, run, split, on, regions, others=others, folds=())
    finished = [k for k, folder in run.fold_folders().items() if (folder / "result.json").is_file()]
    if "validation" in on:
        pending = stems_of(r for k, fold in enumerate(split.folds) if k not in finished for r in fold.held_out)
        named = {name for name in on if name in stems}
        regions = tuple(r for r in regions if r.micrograph in named or r.micrograph not in pending)
    if not regions:
        raise SplitError(f"No fold of the run {run.id} has been finished yet.", "Resume the run, or name a micrograph.")
    return describe(project, run, split, on, regions, folds=finished)


def describe(
    project: Project,
    run: Run,
    split: Split,
    on: Sequence[str],
    regions: tuple[Region, ...],
    *,
    others: Sequence[Run] = (),
    folds: Collection[int] | None = None,
) -> Ground:
    """The ground in words. Ground that an ancestor of the model was trained on counts as trained on.

    `folds` are those of the run that have been trained, all when left out.
    """
    specimens = {record.stem: record.specimen for record in project.micrographs()}
    trained = range(len(split.folds)) if folds is None else folds
    fold_of = {stem: k for k in trained for stem in stems_of(split.folds[k].held_out)}
    averaged = [region for other in others for region in trained_on(project, other)]
    own = max(
        (_closest([r], (*_seen_by(split, fold_of.get(r.micrograph)), *averaged), specimens) for r in regions),
        key=_CLOSENESS.index,
        default="specimen",
    )
    before = {fold: inherited(project, run, fold) for fold in {fold_of.get(r.micrograph) for r in regions}}
    from_before = max(
        (_closest([r], before[fold_of.get(r.micrograph)], specimens) for r in regions),
        key=_CLOSENESS.index,
        default="specimen",
    )
    is_validation = tuple(on) == ("validation",) and not others
    sentences = [split.note if is_validation else _own_note(regions, own, specimens)]
    sentences += _about_folds(split, regions, fold_of, is_validation=is_validation)
    if _CLOSENESS.index(from_before) > _CLOSENESS.index(own):
        sentences.append(f"The weights it started from had been trained on {_SHARED[from_before]}")
    if not is_validation:  # of which the split's note says so
        made, measured = {r.stem for r in project.micrographs() if r.synthetic}, stems_of(regions)
        about = synthetic_note(len(measured & made), len(measured))
        sentences += [f"This ground: {about}"] if about else []
    if any(_touch(regions, one.validation) for one in (split, *(other.split() for other in others))):
        sentences.append(_SAME_GROUND)
    closeness = max(own, from_before, key=_CLOSENESS.index)
    note = " ".join(f"{s.rstrip('.')}." for s in sentences)
    fitted_on = (*split.validation, *(r for fold in split.folds for r in fold.held_out))
    return Ground(tuple(on), regions, closeness, note, _touch(regions, fitted_on), fold_of)


def _touch(regions: Sequence[Region], others: Sequence[Region]) -> bool:
    """Whether any pixel lies in both; a micrograph of the validation part may be named by hand, too."""
    return any(r.micrograph == o.micrograph and _overlap(r, o) for r in regions for o in others)


def _seen_by(split: Split, fold: int | None) -> tuple[Region, ...]:
    """What the network of a fold was trained on; without one, what all of them were."""
    return split.train if fold is None else split.folds[fold].train


def _about_folds(
    split: Split, regions: Sequence[Region], fold_of: Mapping[str, int], *, is_validation: bool
) -> Iterator[str]:
    by_fold = {fold_of[r.micrograph] for r in regions if r.micrograph in fold_of}
    if not by_fold:
        return
    n_trained = len(set(fold_of.values()))
    if n_trained < len(split.folds):
        yield f"Only {n_trained} of the {len(split.folds)} folds {'was' if n_trained == 1 else 'were'} trained"
    if not is_validation:
        yield "Micrographs that a fold held out are measured by its network alone, any others by the mean of all"
        if any(not split.folds[k].selection for k in by_fold):
            yield _SAME_GROUND


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
