"""Joint augmentation of image, targets and pixel weights: masks move with their image and are never interpolated.

Of a preset's transforms (`core.legality.PRESETS`) those are done that are allowed. In the order of nature: specimen
(bending, symmetry), lens, scan, detector. What comes in from beyond a crop is mirrored in the image and unlabelled
in the targets: it was never seen, and a mirror may be illegal itself.
"""

from __future__ import annotations

from typing import Any, Final, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from napari_emtransfer.core.config import AugmentPreset
from napari_emtransfer.core.data.labels import IGNORE_INDEX
from napari_emtransfer.core.legality import ALL, PRESETS, symmetries
from napari_emtransfer.core.nn import em_noise

# Ranges for standardised images (variance 1).
_BRIGHTNESS: Final = 0.2
_CONTRAST: Final = 0.2
_LOG_GAMMA: Final = 0.2
_NOISE: Final = 0.1
# Chances of what is not always done.
_POLARITY: Final = 0.2
_COUNTING: Final = 0.7
_SCANNING: Final = 0.5
_DEFOCUS: Final = 0.3

_BENDING: Final = frozenset({"rotation", "scale", "elastic"})
# Whoever may be blurred or noisy has grey values, which may be interpolated; others are codes.
_MIXING: Final = frozenset({"blur", "gaussian-noise"})

_Scalar = TypeVar("_Scalar", bound=np.generic)
# "targets" (H, W) uint8 and, where there are any, "weights" (H, W) float32.
Masks = dict[str, NDArray[Any]]


def dihedral(array: NDArray[_Scalar], element: int) -> NDArray[_Scalar]:
    """One of the 8 symmetries of the square on the last two axes of `array`; element 0 is the identity.

    1, 2, 3 are quarter turns, 4 the horizontal flip, 6 the vertical one, 5 and 7 those of the diagonals.
    """
    turned = np.rot90(array, element % 4, axes=(-2, -1))
    return np.flip(turned, axis=-1) if element >= 4 else turned


def jitter_intensity(
    image: NDArray[np.float32], rng: np.random.Generator, names: frozenset[str] = ALL
) -> NDArray[np.float32]:
    """Mild gamma, contrast, brightness and noise, those in `names`, on a standardised image (H, W)."""
    if "gamma" in names:
        low = np.float32(image.min())
        span = np.float32(max(float(image.max() - low), 1e-6))
        gamma = np.exp(rng.uniform(-_LOG_GAMMA, _LOG_GAMMA))
        image = ((image - low) / span) ** np.float32(gamma) * span + low
    if "contrast" in names:
        image = image * np.float32(rng.uniform(1 - _CONTRAST, 1 + _CONTRAST))
    if "brightness" in names:
        image = image + np.float32(rng.uniform(-_BRIGHTNESS, _BRIGHTNESS))
    if "gaussian-noise" in names:
        image = image + rng.standard_normal(image.shape, dtype=np.float32) * np.float32(rng.uniform(0, _NOISE))
    return image


@overload
def augment(
    image: NDArray[np.float32],
    targets: NDArray[np.uint8],
    preset: AugmentPreset,
    rng: np.random.Generator,
    *,
    allowed: frozenset[str] = ALL,
    weights: None = None,
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]: ...


@overload
def augment(
    image: NDArray[np.float32],
    targets: NDArray[np.uint8],
    preset: AugmentPreset,
    rng: np.random.Generator,
    *,
    allowed: frozenset[str] = ALL,
    weights: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[np.float32]]: ...


def augment(
    image: NDArray[np.float32],
    targets: NDArray[np.uint8],
    preset: AugmentPreset,
    rng: np.random.Generator,
    *,
    allowed: frozenset[str] = ALL,
    weights: NDArray[np.float32] | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.uint8]] | tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[np.float32]]:
    """Image, targets and, if given, weights of one square crop, all (H, W) → the same, moved alike.

    Parameters
    ----------
    preset
        "none" returns the arrays as they are. "basic": flips and quarter turns, mild brightness, contrast, gamma and
        noise. "extended": rotation, scale ± 30 %, elastic bending and blur besides; it helps where micrographs differ
        in scale and sharpness, and can hurt elsewhere (Goetz et al., npj Comput. Mater. 8 (2022) 27). "em-noise":
        basic with counting noise, blur, drift, unsteady rows, and inverted contrast now and then.
    rng
        Where all chance comes from: the same state gives the same crop.
    allowed
        Names of `core.legality.TRANSFORMS` (`core.legality.allowed_transforms`); others are left out. Where neither
        blur nor noise is among them, the values are codes, and the image moves by the nearest pixel like its targets.
    """
    names = frozenset(PRESETS[preset]) & allowed
    masks: Masks = {"targets": targets}
    if weights is not None:
        masks["weights"] = weights
    if names & _BENDING:
        image, masks = _bend(image, masks, names & _BENDING, rng, smooth=bool(allowed & _MIXING))
    if element := rng.choice(symmetries(names)):
        image, masks = dihedral(image, element), {name: dihedral(mask, element) for name, mask in masks.items()}
    if "blur" in names and rng.random() < _DEFOCUS:
        image = em_noise.defocus(image, rng)
    if names & {"drift", "scan-jitter"}:
        image, masks = _scan(image, masks, names, rng)
    if "polarity" in names and rng.random() < _POLARITY:
        image = -image
    image = jitter_intensity(image, rng, names)
    if "poisson-gaussian-noise" in names and rng.random() < _COUNTING:
        image = em_noise.count_electrons(image, rng)
    moved = masks["targets"]
    return (image, moved) if weights is None else (image, moved, masks["weights"])


def _bend(
    image: NDArray[np.float32], masks: Masks, names: frozenset[str], rng: np.random.Generator, *, smooth: bool
) -> tuple[NDArray[np.float32], Masks]:
    """Bent, unless that would lose every label of a sparsely labelled crop."""
    from napari_emtransfer.core.nn.bending import bend  # takes seconds

    bent, moved = bend(image, masks, names, seed=int(rng.integers(2**31)), smooth=smooth)
    return (bent, moved) if (moved["targets"] != IGNORE_INDEX).any() else (image, masks)


def _scan(
    image: NDArray[np.float32], masks: Masks, names: frozenset[str], rng: np.random.Generator
) -> tuple[NDArray[np.float32], Masks]:
    """Rows moved along the fast scan direction, which is the horizontal one: after all symmetries, therefore."""
    shifts = np.zeros(image.shape[0])
    for name, displace in (("drift", em_noise.drift), ("scan-jitter", em_noise.jitter)):
        if name in names and rng.random() < _SCANNING:
            shifts += displace(image.shape[0], rng)
    whole = np.round(shifts).astype(np.intp)
    if not whole.any():
        return image, masks
    targets = em_noise.shift_rows(masks["targets"], whole, beyond=IGNORE_INDEX)
    if not (targets != IGNORE_INDEX).any():
        return image, masks
    moved = {name: em_noise.shift_rows(mask, whole, beyond=1) for name, mask in masks.items() if name != "targets"}
    return em_noise.shift_rows(image, whole), {"targets": targets, **moved}
