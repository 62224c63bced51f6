"""Show what an augmentation does: nine crops of one micrograph with their labels, as a training would draw them."""

from __future__ import annotations

import time
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from napari_emtransfer.core.data.intensity import Standardization
from napari_emtransfer.core.data.labels import IGNORE_INDEX, from_targets, to_targets
from napari_emtransfer.core.data.project import Project
from napari_emtransfer.core.data.tiles import Window
from napari_emtransfer.core.errors import AugmentationError
from napari_emtransfer.core.legality import allowed_transforms, left_out
from napari_emtransfer.core.nn.augment import augment
from napari_emtransfer.core.nn.ground import View
from napari_emtransfer.worker.control import Cancelled, Emit, RunControl
from napari_emtransfer.worker.models import open_for, working_view
from napari_emtransfer.worker.preview_file import write_preview
from napari_emtransfer.worker.protocol import PreviewRequest

N_SAMPLES: Final = 9
FOLDER: Final = "previews"
# Grey values beyond these percentiles of the unchanged crops are shown as black and white.
_SHOWN_PERCENTILES: Final = (0.5, 99.5)


def preview(request: PreviewRequest, emit: Emit, control: RunControl) -> dict[str, Any]:  # noqa: ARG001 - quick
    """Draw crops around labelled pixels, augment them, and write images and masks to a file in the project's folder.

    Returns
    -------
    dict
        "file": an .npz with "images" (9, h, w) uint8, all with the same contrast, and "masks" (9, h, w) uint8 label
        values; "left_out": transform → why the project's modality forbids it; "seconds".

    Raises
    ------
    AugmentationError
        When nothing of the micrograph is labelled.
    """
    started = time.monotonic()
    with Project.open(request.project) as project:
        settings = project.settings
        micrograph = open_for(project, request.micrograph)
        view = working_view(micrograph, Standardization(), settings.working_pixel_size_nm)
        targets = to_targets(view.mask_to_working(project.annotations.read(request.micrograph)))
        root = project.root
    if not (targets != IGNORE_INDEX).any():
        raise AugmentationError(
            f"Nothing of {request.micrograph} is labelled, so there is no training crop to show.",
            "Paint a few strokes there first, or show another micrograph.",
        )
    allowed = allowed_transforms(settings.modality, request.illegal)
    images, masks = _samples(view, targets, request, allowed, control)
    return {
        "file": str(write_preview(root / FOLDER, "augmentation", images, masks)),
        "left_out": left_out(settings.modality, request.preset, request.illegal),
        "seconds": time.monotonic() - started,
    }


def _samples(
    view: View, targets: NDArray[np.uint8], request: PreviewRequest, allowed: frozenset[str], control: RunControl
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    rng = np.random.default_rng(request.seed)
    positions = _positions(targets, rng)
    plain, augmented = [], []
    for _ in range(N_SAMPLES):
        if control.cancelled:
            raise Cancelled
        crop = _cut(view, targets, _place(positions, targets.shape, request.crop_px, rng), request.crop_px)
        plain.append(crop[0])
        augmented.append(augment(*crop, request.preset, rng, allowed=allowed))
    low, high = np.percentile(plain, _SHOWN_PERCENTILES)
    images = np.stack([image for image, _ in augmented])
    grey = np.clip((images - low) / max(high - low, 1e-6), 0, 1) * 255
    return grey.round().astype(np.uint8), from_targets(np.stack([mask for _, mask in augmented]))


def _positions(targets: NDArray[np.uint8], rng: np.random.Generator) -> list[NDArray[np.int64]]:
    """Some flat positions of the pixels of each class that is labelled."""
    found = [np.flatnonzero(targets == label) for label in np.unique(targets) if label != IGNORE_INDEX]
    return [rng.choice(positions, 20 * N_SAMPLES) for positions in found]


def _place(
    positions: list[NDArray[np.int64]], shape: tuple[int, ...], crop_px: int, rng: np.random.Generator
) -> tuple[int, int]:
    """Origin (y, x) of a crop around a pixel of a class drawn with equal chance, give or take a quarter of the crop."""
    centre = divmod(int(rng.choice(positions[rng.integers(len(positions))])), shape[1])
    offsets = rng.integers(-(crop_px // 4), crop_px // 4, size=2, endpoint=True) + crop_px // 2
    y, x = (
        int(np.clip(c - offset, 0, max(0, length - crop_px)))
        for c, offset, length in zip(centre, offsets, shape, strict=True)
    )
    return y, x


def _cut(
    view: View, targets: NDArray[np.uint8], origin: tuple[int, int], crop_px: int
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """A square crop; what a small micrograph lacks is mirrored and not labelled, as in training."""
    (y, x), (height, width) = origin, targets.shape
    window = Window(y0=y, x0=x, y1=min(y + crop_px, height), x1=min(x + crop_px, width))
    image, labels = view.read(window), targets[window.slices]
    missing = [(0, crop_px - length) for length in labels.shape]
    return np.pad(image, missing, mode="reflect"), np.pad(labels, missing, constant_values=IGNORE_INDEX)
