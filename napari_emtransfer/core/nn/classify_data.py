"""Micrographs sorted into folders, one per class: read, standardised, divided, and cut into crops."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_emtransfer.core.data.intensity import Standardization
from napari_emtransfer.core.data.micrograph import Micrograph
from napari_emtransfer.core.data.readers import checksum, read_micrograph, supported_suffixes
from napari_emtransfer.core.data.resample import WorkingView
from napari_emtransfer.core.data.storage import storage_faults
from napari_emtransfer.core.errors import EMTransferError, LabelError, UnreadableFileError
from napari_emtransfer.core.nn.augment import dihedral, jitter_intensity

HELD_OUT_SHARE: Final = 0.2
# The shorter side is kept at no more than so many crops: an archive of thousands of images must fit the disk.
_KEPT_CROPS: Final = 3

Progress = Callable[[int, int], None]
Image = NDArray[np.float16]


@dataclass(frozen=True, eq=False)
class ClassifiedImage:
    """A standardised image (H, W) without its info bar, and the index of its class."""

    name: str
    label: int
    image: Image


@dataclass(frozen=True)
class ImageArchive:
    """Readable images of a folder with one folder per class; `skipped` are sentences about those left out."""

    classes: tuple[str, ...]
    images: tuple[ClassifiedImage, ...]
    skipped: tuple[str, ...] = ()
    fingerprint: str = ""


@dataclass(frozen=True)
class ClassBatch:
    """images (N, 1, H, W) float32, labels (N,) int64."""

    images: Tensor
    labels: Tensor


def list_classes(root: Path) -> dict[str, list[Path]]:
    """Class name → its files, by the names of the folders in `root`; other files and hidden ones are left out.

    Raises
    ------
    UnreadableFileError
        When there is no such folder.
    LabelError
        When it holds fewer than two folders with images.
    """
    if not root.is_dir():
        raise UnreadableFileError(
            f"There is no folder {str(root)!r}.", "Name a folder that holds one folder of images per class."
        )
    suffixes = supported_suffixes()
    folders = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    files = {f.name: sorted(p for p in f.iterdir() if _is_image(p, suffixes)) for f in folders}
    found = {name: paths for name, paths in files.items() if paths}
    if len(found) < 2:
        there = f"one class with images ({next(iter(found))!r})" if found else "no folder with images"
        raise LabelError(
            f"{str(root)!r} holds {there}; at least two classes are needed to tell apart.",
            "Sort the images into one folder per class: FOLDER/CLASS/IMAGE.",
        )
    return found


@contextmanager
def read_archive(
    root: Path, *, crop_px: int, progress: Progress = lambda _done, _total: None
) -> Iterator[ImageArchive]:
    """All images of `root`, standardised as in training; their pixels lie in a temporary file while the block lasts.

    A file that cannot be read, or that has the same content as one before, is left out and said so. `progress` gets
    files done and in all, and may raise to end the reading.

    Raises
    ------
    LabelError
        When fewer than two classes keep two readable images, which is what it takes to hold one out.
    StorageError
        When the temporary disk is full.
    """
    listed = list_classes(root)
    with tempfile.TemporaryFile(prefix="emtransfer-") as store:
        reading = _Reading(store, crop_px)
        total, done = sum(map(len, listed.values())), 0
        for label, paths in enumerate(listed.values()):
            for path in paths:
                reading.take(path, label)
                done += 1
                progress(done, total)
        yield reading.archive(tuple(listed))


def hold_out(archive: ImageArchive, seed: int) -> tuple[list[ClassifiedImage], list[ClassifiedImage]]:
    """Divide by file: a fifth of each class, at least one image of it, is held out → (training, held out)."""
    rng = np.random.default_rng(seed)
    train: list[ClassifiedImage] = []
    held_out: list[ClassifiedImage] = []
    for label in range(len(archive.classes)):
        images = [image for image in archive.images if image.label == label]
        order = rng.permutation(len(images))
        n_held_out = max(1, round(HELD_OUT_SHARE * len(images)))
        held_out += [images[i] for i in sorted(order[:n_held_out])]
        train += [images[i] for i in sorted(order[n_held_out:])]
    return train, held_out


class ClassSampler:
    """Draws batches with every class equally often; batch i is a function of (seed, i) alone.

    A crop is a square of random place and size, from `crop_px` up to the shorter side of the image, shrunk to
    `crop_px`: the network sees texture and whole structures alike. With `augmented`, flips, quarter turns, brightness,
    contrast, gamma and noise follow.
    """

    def __init__(
        self, images: Sequence[ClassifiedImage], *, crop_px: int, batch_size: int, seed: int, augmented: bool = True
    ) -> None:
        labels = sorted({image.label for image in images})
        self._by_class = [[image for image in images if image.label == label] for label in labels]
        self._crop, self._batch_size, self._seed, self._augmented = crop_px, batch_size, seed, augmented

    def batch(self, index: int) -> ClassBatch:
        """The batch for iteration `index`."""
        rng = np.random.default_rng((self._seed, index))
        chosen = [self._draw(rng) for _ in range(self._batch_size)]
        crops = np.stack([self._cut(image.image, rng) for image in chosen])[:, None]
        return ClassBatch(torch.from_numpy(crops), torch.tensor([image.label for image in chosen]))

    def _draw(self, rng: np.random.Generator) -> ClassifiedImage:
        images = self._by_class[rng.integers(len(self._by_class))]
        return images[rng.integers(len(images))]

    def _cut(self, image: Image, rng: np.random.Generator) -> NDArray[np.float32]:
        shorter = min(image.shape)
        side = shorter if shorter <= self._crop else round(np.exp(rng.uniform(np.log(self._crop), np.log(shorter))))
        y, x = (int(rng.integers(length - side + 1)) for length in image.shape)
        crop = _resized(image[y : y + side, x : x + side], self._crop)
        return jitter_intensity(dihedral(crop, int(rng.integers(8))), rng) if self._augmented else crop


def fixed_views(image: Image, crop_px: int) -> Tensor:
    """What a held-out image is judged by: its central square and that one's quadrants → (5, 1, c, c) float32."""
    side = min(image.shape)
    y, x = ((length - side) // 2 for length in image.shape)
    square = image[y : y + side, x : x + side]
    half = max(1, side // 2)
    parts = [square, *(square[a : a + half, b : b + half] for a in (0, side - half) for b in (0, side - half))]
    return torch.from_numpy(np.stack([_resized(part, crop_px) for part in parts])[:, None])


class _Reading:
    """Reads one file after another into a scratch file."""

    def __init__(self, store: IO[bytes], crop_px: int) -> None:
        self._store, self._kept_px = store, _KEPT_CROPS * crop_px
        self._places: list[tuple[str, int, int, tuple[int, int]]] = []
        self._skipped: list[str] = []
        self._seen: dict[str, str] = {}

    def take(self, path: Path, label: int) -> None:
        """Read one image; one that cannot be read, or is there already, is noted as left out."""
        name = f"{path.parent.name}/{path.name}"
        try:
            content = checksum(path)
            if content in self._seen:
                self._skipped.append(f"{name} has the same content as {self._seen[content]}.")
                return
            image = _standardised(read_micrograph(path), self._kept_px)
        except EMTransferError as error:
            self._skipped.append(f"{name}: {error.message}")
            return
        self._seen[content] = name
        start = self._store.tell() // image.itemsize
        self._places.append((name, label, start, (image.shape[0], image.shape[1])))
        with storage_faults(Path(tempfile.gettempdir())):
            self._store.write(image.tobytes())

    def archive(self, classes: tuple[str, ...]) -> ImageArchive:
        """Everything read so far; classes with too few images are left out."""
        counts = np.bincount([label for _, label, _, _ in self._places], minlength=len(classes))
        kept = [label for label, count in enumerate(counts) if count >= 2]
        lost = [f"The class {classes[i]!r} is left out: it has {n} readable image(s), and at least 2 are needed."
                for i, n in enumerate(counts) if n < 2]  # fmt: skip
        if len(kept) < 2:
            raise LabelError(
                f"Only {len(kept)} of the classes {', '.join(classes)} has two readable images; two are needed.",
                (self._skipped or ["Add images."])[0],
            )
        self._store.flush()
        numbers = {label: number for number, label in enumerate(kept)}
        # One map for all images: thousands of maps would exceed what a process may have.
        pixels = np.memmap(self._store, np.float16, "r")
        images = tuple(
            ClassifiedImage(name, numbers[label], pixels[start : start + shape[0] * shape[1]].reshape(shape))
            for name, label, start, shape in self._places
            if label in numbers
        )
        digest = hashlib.blake2b("\n".join(f"{k} {v}" for k, v in sorted(self._seen.items())).encode(), digest_size=16)
        names = tuple(classes[label] for label in kept)
        return ImageArchive(names, images, (*self._skipped, *lost), digest.hexdigest())


def _standardised(micrograph: Micrograph, kept_px: int) -> Image:
    """Pixels (H, W) with mean 0 and variance 1, without the info bar, shrunk where the image is large."""
    scale = min(1.0, kept_px / min(micrograph.shape))
    view = WorkingView(micrograph, scale=scale, intensity=Standardization().fit(micrograph))
    pixels, bar = view.read(), micrograph.info_bar
    if bar is not None:
        covered = view.to_working(bar)
        above, below = pixels[: covered.y0], pixels[covered.y1 :]
        pixels = above if len(above) >= len(below) else below
    return pixels.astype(np.float16)


def _resized(square: Image, side: int) -> NDArray[np.float32]:
    """A square (n, n) → (side, side): averaged where it shrinks, mirrored outwards where it is too small."""
    values = np.asarray(square, np.float32)
    missing = side - len(values)
    if missing == 0:
        return values
    if missing > 0:
        return np.pad(values, [(missing // 2, missing - missing // 2)] * 2, mode="symmetric")
    tensor = torch.from_numpy(np.ascontiguousarray(values))[None, None]
    shrunk = torch.nn.functional.interpolate(tensor, size=(side, side), mode="bilinear", antialias=True)
    return np.asarray(shrunk[0, 0].numpy())


def _is_image(path: Path, suffixes: frozenset[str]) -> bool:
    return path.is_file() and not path.name.startswith(".") and path.suffix.lower() in suffixes
