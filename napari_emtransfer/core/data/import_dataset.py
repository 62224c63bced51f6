"""Import of labelled data sets: masks become annotations, the images stay where they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from napari_emtransfer.core.data.import_description import UNLABELLED_NAMES, DatasetDescription, read_description
from napari_emtransfer.core.data.import_masks import read_mask, to_labels
from napari_emtransfer.core.data.import_pairs import Pair, Pairing, find_folder, find_pairs
from napari_emtransfer.core.data.labels import MAX_CLASSES, PALETTE, LabelClass, LabelSchema
from napari_emtransfer.core.data.project import Project
from napari_emtransfer.core.data.readers import read_micrograph
from napari_emtransfer.core.errors import LabelError, NotAMicrographError, ProjectError, UnreadableFileError

# (done, total, stem)
Progress = Callable[[int, int, str], None]
_FAULTS_OF_ONE_FILE = (LabelError, NotAMicrographError, UnreadableFileError, ProjectError)


class ImportReport(BaseModel):
    """What an import did. `skipped` names a file or micrograph and the reason; nothing is dropped silently."""

    model_config = ConfigDict(frozen=True)
    micrographs: tuple[str, ...]
    classes: tuple[str, ...]
    labelled: tuple[str, ...]
    unchanged: tuple[str, ...]
    splits: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...]


def import_dataset(
    project: Project, folder: Path | str, *, force: bool = False, progress: Progress | None = None
) -> ImportReport:
    """Import a folder with `images/`, `masks/` and `dataset.json`.

    Classes are matched to those of the project by name, or added. Importing again changes nothing, unless `force`
    lets the masks replace labels that differ from them. A pair that fails is skipped with its reason.

    Raises
    ------
    LabelError
        When the folder is no data set, or not one of its masks can be imported.
    StorageError
        When the project cannot be written.
    """
    folder = Path(folder).expanduser().resolve()
    images, masks = find_folder(folder, "images"), find_folder(folder, "masks")
    description = read_description(folder / "dataset.json")
    return import_described(project, images, masks, description, force=force, progress=progress)


def import_described(
    project: Project,
    images: Path,
    masks: Path,
    description: DatasetDescription,
    *,
    force: bool = False,
    progress: Progress | None = None,
) -> ImportReport:
    """As `import_dataset`, of two folders that somebody has described."""
    return _Import(project, description, force=force).run(find_pairs(images, masks), progress)


def import_folders(
    project: Project,
    images: Path | str,
    masks: Path | str,
    mapping: Mapping[int, str],
    *,
    force: bool = False,
    progress: Progress | None = None,
) -> ImportReport:
    """Import images and masks that have the same names; `mapping` says what the mask values mean.

    A value that is mapped to "unlabelled" carries no label, nor does 0 unless it is mapped.
    """
    images, masks = (Path(folder).expanduser().resolve() for folder in (images, masks))
    return import_described(project, images, masks, _description(mapping), force=force, progress=progress)


def _description(mapping: Mapping[int, str]) -> DatasetDescription:
    if not any(name.casefold() not in UNLABELLED_NAMES for name in mapping.values()):
        raise LabelError("The map names no class.", "For example 0=matrix,255=pore.")
    return DatasetDescription(classes=dict(mapping))


class _Import:
    """One import under way."""

    def __init__(self, project: Project, description: DatasetDescription, *, force: bool) -> None:
        self.project = project
        self.description = description
        self.force = force
        self.schema = _joined(project.schema, description.names)
        self.mapping = _value_map(description, self.schema)
        self.stems: dict[str, list[str]] = {}  # name in the data set → stems in the project
        self.labelled: list[str] = []
        self.unchanged: list[str] = []
        self.skipped: list[tuple[str, str]] = []
        self.first_hint = ""

    def run(self, pairing: Pairing, progress: Progress | None) -> ImportReport:
        self.skipped += pairing.left_over
        # Those without a mask come last: they are worth adding only beside labelled ones.
        pairs = sorted(pairing.pairs, key=lambda pair: pair.mask is None)
        for done, pair in enumerate(pairs, start=1):
            if pair.mask is None and not self.stems:
                self._refuse_all(len(pairs))
            try:
                self._take(pair)
            except _FAULTS_OF_ONE_FILE as error:
                self.skipped.append((pair.key, error.message))
                self.first_hint = self.first_hint or error.hint
            if progress is not None:
                progress(done, len(pairs), pair.key)
        if not self.stems:
            self._refuse_all(len(pairs))
        splits = self._keep_splits()
        _set_working_pixel_size(self.project)
        return ImportReport(
            micrographs=tuple(dict.fromkeys(stem for stems in self.stems.values() for stem in stems)),
            classes=self.project.schema.names,
            labelled=tuple(self.labelled),
            unchanged=tuple(self.unchanged),
            splits=splits,
            skipped=tuple(self.skipped),
        )

    def _take(self, pair: Pair) -> None:
        labels = None
        if pair.mask is not None:
            labels = to_labels(read_mask(pair.mask), self.mapping, name=pair.key, hint=self._map_hint())
        present = self.project.find_micrograph(pair.image)
        stem = present.stem if present else self._add(pair, labels)
        for name in pair.names:
            self.stems.setdefault(name, []).append(stem)
        if labels is None:
            self.skipped.append((stem, "it has no mask; added without labels"))
        else:
            self._label(stem, labels)

    def _add(self, pair: Pair, labels: NDArray[np.uint8] | None) -> str:
        micrograph = read_micrograph(pair.image)
        _check_shape(pair.key, labels, micrograph.shape)
        record = self.project.register(
            micrograph,
            specimen=self.description.specimen(pair.names),
            pixel_size_nm=self.description.pixel_size(pair.names),
            domain=self.description.domain,
            synthetic=self.description.synthetic,
        )
        return record.stem

    def _label(self, stem: str, labels: NDArray[np.uint8]) -> None:
        store = self.project.annotations
        _check_shape(stem, labels, store.shape(stem))
        present = store.read(stem)
        if np.array_equal(present, labels):
            self.unchanged.append(stem)
        elif present.any() and not self.force:
            self.skipped.append(
                (stem, "its labels differ from the mask and were kept; force the import to replace them")
            )
        else:
            if self.project.schema != self.schema:
                self.project.set_schema(self.schema)
            store.write(stem, None, labels)
            self.labelled.append(stem)
            store.labelled_fraction(stem)  # counted while it is warm, and kept for the next start

    def _keep_splits(self) -> tuple[str, ...]:
        known = dict.fromkeys(stem for stems in self.stems.values() for stem in stems)
        named = self.description.all_splits(known)
        splits = {
            name: {part: [s for stem in stems for s in self.stems.get(stem, ())] for part, stems in parts.items()}
            for name, parts in named.items()
        }
        self.project.set_named_splits(splits)
        return tuple(splits)

    def _refuse_all(self, n: int) -> None:
        stem, reason = self.skipped[0] if self.skipped else ("", "the masks have other names than the images")
        first = f"{stem}: {reason}".removeprefix(": ")
        raise LabelError(
            f"None of the {n} images could be imported with its mask; the first: {first.rstrip('.')}.",
            self.first_hint or "A mask has the name of its image: a.tif and a.png, or a_mask.png.",
        )

    def _map_hint(self) -> str:
        pairs = ",".join(f"{value}={name}" for value, name in sorted(self.description.classes.items())[:4])
        return (
            f"Say what each value means: --images DIR --masks DIR --map {pairs},VALUE=NAME "
            "(the name 'unlabelled' leaves a value out)."
        )


def _joined(schema: LabelSchema, names: tuple[str, ...]) -> LabelSchema:
    """The project's classes and after them the new ones."""
    classes = list(schema.classes)
    known = {c.name.casefold() for c in classes}
    for name in names:
        if name.casefold() not in known:
            value = len(classes) + 1
            if value > MAX_CLASSES:
                raise LabelError(f"The data set would make more than {MAX_CLASSES} classes.", "Map some to one name.")
            classes.append(LabelClass(value=value, name=name, color=PALETTE[(value - 1) % len(PALETTE)]))
            known.add(name.casefold())
    return LabelSchema(classes=tuple(classes))


def _value_map(description: DatasetDescription, schema: LabelSchema) -> dict[int, int]:
    """Mask value → label value of the project."""
    labels = {c.name.casefold(): c.value for c in schema.classes}
    unlabelled = dict.fromkeys((0, *description.unlabelled), 0)
    # A value with a name is a class even where it is 0.
    return unlabelled | {value: labels.get(name.strip().casefold(), 0) for value, name in description.classes.items()}


def _check_shape(name: str, labels: NDArray[np.uint8] | None, shape: tuple[int, int]) -> None:
    if labels is not None and labels.shape != shape:
        (h, w), (height, width) = labels.shape, shape
        raise LabelError(
            f"The mask of {name!r} measures {h} × {w} pixels, but the image {height} × {width}.",
            "Crop or resize both to the same size; an info bar that was cut off must be cut off both.",
        )


def _set_working_pixel_size(project: Project) -> None:
    """Where none is set and at least half of the micrographs know theirs: their median.

    Synthetic ones have no say where there are real ones.
    """
    records = project.micrographs()
    sizes = [r.pixel_size_nm for r in [r for r in records if not r.synthetic] or records]
    known = [size for size in sizes if size is not None]
    if project.settings.working_pixel_size_nm is None and known and 2 * len(known) >= len(sizes):
        project.update_settings(working_pixel_size_nm=float(np.median(known)))
