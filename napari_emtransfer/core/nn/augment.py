"""Joint augmentation of image, targets and pixel weights. Masks move with their image and are never interpolated.

"basic" is plain numpy: the dihedral group is a transposed and flipped view, which no augmentation library beats.
"extended" bends and scales with albumentations, which nothing else in the package imports.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from napari_emtransfer.core.config import AugmentPreset

# Ranges for standardised images (variance 1).
_BRIGHTNESS: Final = 0.2
_CONTRAST: Final = 0.2
_LOG_GAMMA: Final = 0.2
_NOISE: Final = 0.1


_Scalar = TypeVar("_Scalar", bound=np.generic)


def dihedral(array: NDArray[_Scalar], element: int) -> NDArray[_Scalar]:
    """One of the 8 symmetries of the square on the last two axes of `array`; element 0 is the identity."""
    turned = np.rot90(array, element % 4, axes=(-2, -1))
    return np.flip(turned, axis=-1) if element >= 4 else turned


def jitter_intensity(image: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Mild gamma, contrast, brightness and noise on a standardised image (H, W)."""
    low, high = float(image.min()), float(image.max())
    span = max(high - low, 1e-6)
    gamma = np.exp(rng.uniform(-_LOG_GAMMA, _LOG_GAMMA))
    contrast = rng.uniform(1 - _CONTRAST, 1 + _CONTRAST)
    brightness = rng.uniform(-_BRIGHTNESS, _BRIGHTNESS)
    curved = ((image - low) / span) ** np.float32(gamma) * span + low
    noise = rng.standard_normal(image.shape, dtype=np.float32) * np.float32(rng.uniform(0, _NOISE))
    return (curved * np.float32(contrast) + np.float32(brightness) + noise).astype(np.float32, copy=False)


@overload
def augment(
    image: NDArray[np.float32], targets: NDArray[np.uint8], preset: AugmentPreset, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]: ...


@overload
def augment(
    image: NDArray[np.float32],
    targets: NDArray[np.uint8],
    preset: AugmentPreset,
    rng: np.random.Generator,
    *,
    weights: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[np.float32]]: ...


def augment(
    image: NDArray[np.float32],
    targets: NDArray[np.uint8],
    preset: AugmentPreset,
    rng: np.random.Generator,
    *,
    weights: NDArray[np.float32] | None = None,
) -> tuple[NDArray[Any], ...]:
    """Image, targets and weights (H, W) of one square crop → the same, moved alike; "none" returns them as they are.

    "basic": flips and quarter turns, mild brightness, contrast, gamma and noise. "extended": before that, rotation,
    scale ± 30 %, elastic bending and blur. It helps where micrographs differ in scale and sharpness, and can hurt
    elsewhere (Goetz et al., npj Comput. Mater. 2022). Without weights there is a pair to return, otherwise a triple.
    """
    masks: list[NDArray[Any]] = [targets] if weights is None else [targets, weights]
    if preset == "none":
        return image, *masks
    if preset == "extended":
        image, *masks = bend(image, *masks, seed=int(rng.integers(2**31)))
    element = int(rng.integers(8))
    return jitter_intensity(dihedral(image, element), rng), *(dihedral(mask, element) for mask in masks)


def bend(image: NDArray[np.float32], *masks: NDArray[Any], seed: int) -> tuple[NDArray[Any], ...]:
    """Rotate, scale, bend and blur an image (H, W); its masks (H, W) likewise, but by the nearest pixel, unblurred.

    What comes in from beyond the border is mirrored, with its masks.
    """
    transform = _bending()
    transform.set_random_seed(seed)
    bent = transform(image=np.ascontiguousarray(image), masks=[np.ascontiguousarray(mask) for mask in masks])
    return bent["image"], *bent["masks"]


@cache
def _bending() -> Any:
    import albumentations  # takes seconds
    import cv2

    moved = {
        "interpolation": cv2.INTER_LINEAR,
        "mask_interpolation": cv2.INTER_NEAREST,
        "border_mode": cv2.BORDER_REFLECT_101,
    }
    return albumentations.Compose(
        [
            albumentations.Affine(scale=(0.7, 1.3), rotate=(-20, 20), p=0.7, **moved),
            albumentations.ElasticTransform(alpha=30, sigma=6, p=0.3, **moved),
            albumentations.GaussianBlur(blur_limit=0, sigma_limit=(0.3, 1.2), p=0.3),
        ]
    )
