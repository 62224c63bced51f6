"""Which image belongs to which mask in a folder of a labelled data set."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from napari_emtransfer.core.data.import_masks import MASK_SUFFIXES
from napari_emtransfer.core.data.readers import supported_suffixes
from napari_emtransfer.core.errors import LabelError

_MASK_ENDINGS = ("_mask", "-mask", "_masks", "_label", "_labels", "-label", "_seg", "_gt", "_annotation")
_MASK_BEGINNINGS = ("mask_", "label_")
_FOLDERS = {"images": ("images", "image", "imgs", "img"), "masks": ("masks", "mask", "labels", "label", "annotations")}


@dataclass(frozen=True)
class Pair:
    """An image and its mask. `key` is the path below the image folder without suffix, with forward slashes."""

    key: str
    image: Path
    mask: Path | None

    @property
    def names(self) -> tuple[str, ...]:
        """Names under which a data set may speak of it, the most precise first."""
        return tuple(dict.fromkeys((self.key, PurePosixPath(self.key).name, self.image.name)))


@dataclass(frozen=True)
class Pairing:
    """All pairs, and what was left over: (name, reason)."""

    pairs: tuple[Pair, ...]
    left_over: tuple[tuple[str, str], ...]


def find_folder(dataset: Path, what: str) -> Path:
    """The folder of "images" or "masks" of a data set.

    Raises
    ------
    LabelError
        When there is none; the hint says what a data set looks like.
    """
    if not dataset.is_dir():
        raise LabelError(f"There is no folder {str(dataset)!r}.", "Give the folder that holds images/ and masks/.")
    children = {child.name.casefold(): child for child in dataset.iterdir() if child.is_dir()}
    for name in _FOLDERS[what]:
        if name in children:
            return children[name]
    inside = [child.name for child in children.values() if (child / "dataset.json").is_file()]
    hint = f"Did you mean {str(dataset / inside[0])!r}?" if inside else ""
    raise LabelError(
        f"The folder {str(dataset)!r} has no folder {what!r}.",
        hint or "A data set holds images/, masks/ and dataset.json; for others give --images, --masks and --map.",
    )


def find_pairs(images: Path, masks: Path) -> Pairing:
    """Pair files by their names: "a.tif" with "a.png", "a_mask.png", "mask_a.tif" or "a.tif.png", subfolders included.

    Raises
    ------
    LabelError
        When a folder is missing or there is no image.
    """
    for folder in (images, masks):
        if not folder.is_dir():
            raise LabelError(f"There is no folder {str(folder)!r}.", "Check the path.")
    masks_by_key = {_key(path, masks): path for path in _files(masks, MASK_SUFFIXES)}
    same_folder = images.resolve() == masks.resolve()
    found: dict[str, Path] = {}
    left_over: list[tuple[str, str]] = []
    for path in _files(images, supported_suffixes()):
        key = _key(path, images)
        if same_folder and _bare(PurePosixPath(key).name) != PurePosixPath(key).name:
            continue  # a mask beside its image
        if key in found:
            left_over.append((path.name, f"{found[key].name} has the same name and was used"))
        else:
            found[key] = path
    if not found:
        known = ", ".join(sorted(supported_suffixes()))
        raise LabelError(f"There are no images in {str(images)!r}.", f"Known are files ending in {known}.")
    pairs = [Pair(key, path, _mask_of(key, path, masks_by_key, same_folder)) for key, path in found.items()]
    used = {pair.mask for pair in pairs} | ({pair.image for pair in pairs} if same_folder else set())
    left_over += [(path.name, "a mask without an image") for path in masks_by_key.values() if path not in used]
    return Pairing(tuple(pairs), tuple(left_over))


def _mask_of(key: str, image: Path, masks: dict[str, Path], same_folder: bool) -> Path | None:
    parent, stem = PurePosixPath(key).parent, PurePosixPath(key).name
    names = [] if same_folder else [stem, image.name]
    names += [stem + ending for ending in _MASK_ENDINGS] + [beginning + stem for beginning in _MASK_BEGINNINGS]
    for candidate in [(parent / name).as_posix() for name in names]:
        if candidate in masks:
            return masks[candidate]
    # Another tree of subfolders: by the name alone, where it is unambiguous.
    matches = [path for other, path in masks.items() if PurePosixPath(other).name in names and path != image]
    return matches[0] if len(matches) == 1 else None


def _bare(name: str) -> str:
    for ending in _MASK_ENDINGS:
        name = name.removesuffix(ending)
    for beginning in _MASK_BEGINNINGS:
        name = name.removeprefix(beginning)
    return name


def _key(path: Path, folder: Path) -> str:
    return path.relative_to(folder).with_suffix("").as_posix()


def _files(folder: Path, suffixes: frozenset[str]) -> Iterator[Path]:
    """Files (and folders that are files, such as .zarr) with one of the suffixes, sorted, hidden ones left out."""
    for parent, children, names in os.walk(folder):
        whole = [child for child in children if Path(child).suffix.lower() in suffixes]
        children[:] = sorted(c for c in children if c not in whole and not c.startswith("."))
        for name in sorted([*names, *whole]):
            if not name.startswith(".") and Path(name).suffix.lower() in suffixes:
                yield Path(parent) / name
