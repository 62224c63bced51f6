"""Rotation, scale and elastic bending of one crop, over albumentations: the only module that imports it (slow).

Its blur, noise, brightness, contrast and gamma are not used: they clip floats to 0 … 1, and crops are standardised.
"""

from __future__ import annotations

import os
from functools import cache
from threading import Lock
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

# Without this the import asks a server for a newer version, and waits for it where there is no network.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import albumentations
from albumentations.augmentations.geometric import functional as geometric

from napari_emtransfer.core.data.labels import IGNORE_INDEX

_SCALE: Final = (0.7, 1.3)
_DEGREES: Final = (-20.0, 20.0)
# Displacements of a pixel or two, smooth over some ten: bent, not torn.
_ELASTIC_PX, _ELASTIC_SIGMA_PX = 30.0, 6.0
# A pipeline holds the state of its random numbers.
_LOCK: Final = Lock()

Mask = NDArray[Any]


class _Affine(albumentations.Affine):
    """The image is mirrored beyond its border; its masks know nothing there."""

    def apply_to_mask(self, mask: Mask, matrix: Any, output_shape: Any, **_params: Any) -> Any:
        return geometric.warp_affine(mask, matrix, cv2.INTER_NEAREST, _beyond(mask), cv2.BORDER_CONSTANT, output_shape)


class _Elastic(albumentations.ElasticTransform):
    """The image is mirrored beyond its border; its masks know nothing there."""

    def apply_to_mask(self, mask: Mask, map_x: Any, map_y: Any, **_params: Any) -> Any:
        return geometric.remap(mask, map_x, map_y, cv2.INTER_NEAREST, cv2.BORDER_CONSTANT, _beyond(mask))


def bend(
    image: NDArray[np.float32], masks: dict[str, Mask], names: frozenset[str], *, seed: int, smooth: bool = True
) -> tuple[NDArray[np.float32], dict[str, Mask]]:
    """Rotate, scale and bend an image (H, W), each with a chance of its own, and its masks (H, W) with it.

    Parameters
    ----------
    masks
        "targets" uint8, and "weights" float32 if there are any. They move by the nearest pixel; beyond the border lies
        IGNORE_INDEX, with weight 1.
    names
        Which of "rotation", "scale", "elastic" to do.
    smooth
        Interpolate the image; otherwise it moves by the nearest pixel too.
    """
    with _LOCK:
        pipeline = _pipeline(names, smooth)
        pipeline.set_random_seed(seed)
        bent = pipeline(
            image=np.ascontiguousarray(image), **{name: np.ascontiguousarray(mask) for name, mask in masks.items()}
        )
    return bent["image"], {name: bent[name] for name in masks}


def _beyond(mask: Mask) -> int:
    return IGNORE_INDEX if mask.dtype == np.uint8 else 1


@cache
def _pipeline(names: frozenset[str], smooth: bool) -> Any:
    moved = {
        "interpolation": cv2.INTER_LINEAR if smooth else cv2.INTER_NEAREST,
        "border_mode": cv2.BORDER_REFLECT_101,
    }
    steps: list[Any] = []
    if names & {"rotation", "scale"}:
        scale = _SCALE if "scale" in names else (1.0, 1.0)
        steps.append(_Affine(scale=scale, rotate=_DEGREES if "rotation" in names else 0.0, p=0.7, **moved))
    if "elastic" in names:
        steps.append(_Elastic(alpha=_ELASTIC_PX, sigma=_ELASTIC_SIGMA_PX, p=0.3, **moved))
    return albumentations.Compose(steps, additional_targets={"targets": "mask", "weights": "mask"})
