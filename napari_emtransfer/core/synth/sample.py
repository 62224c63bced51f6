"""The sample data set: three specimens of one dual-phase material, imaged at three settings of the microscope."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Final

import numpy as np
import tifffile

from napari_emtransfer.core.errors import StorageError
from napari_emtransfer.core.synth.voronoi import Imaging, SyntheticMicrograph, two_phase

CLASSES: Final = {"1": "matrix", "2": "second phase"}
PIXEL_SIZE_NM: Final = 25.0
_SHAPE: Final = (512, 512)
_MICROGRAPHS_PER_SPECIMEN: Final = 2
# Settings as three operators would leave them, and three heat treatments.
_SPECIMENS: Final = {
    "annealed": (0.18, Imaging(brightness=-0.06, contrast=0.9, dose=180, gain_noise=0.01, vignette=0.15)),
    "quenched": (0.32, Imaging(brightness=0.14, contrast=0.6, gamma=0.9, dose=60, gain_noise=0.02, vignette=0.3)),
    "tempered": (
        0.25,
        Imaging(brightness=0.02, contrast=1.1, gamma=1.2, dose=100, gain_noise=0.015, blur_px=1.1, edge=0.4),
    ),
}


def write_sample_dataset(folder: str | os.PathLike[str], *, seed: int = 0) -> Path:
    """Write images/, masks/ and dataset.json below `folder` and return it: 3 specimens × 2 micrographs of 512².

    The same seed gives the same pixels.

    Raises
    ------
    StorageError
        When the folder cannot be written.
    """
    folder = Path(folder)
    try:
        for name in ("images", "masks"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        groups = {}
        for number, (specimen, (fraction, imaging)) in enumerate(_SPECIMENS.items()):
            for shot in range(_MICROGRAPHS_PER_SPECIMEN):
                stem = f"{specimen}_{shot + 1}"
                one_seed = 100 * seed + 10 * number + shot
                made = two_phase(_SHAPE, seed=one_seed, fraction=fraction, pixel_size_nm=PIXEL_SIZE_NM, imaging=imaging)
                _write(folder, stem, made)
                groups[stem] = specimen
        _write_description(folder, groups, seed)
    except OSError as error:
        reason = error.strerror or str(error)
        raise StorageError(
            f"The sample cannot be written to {str(folder)!r}: {reason}.", "Choose another folder."
        ) from error
    return folder


def _write(folder: Path, stem: str, made: SyntheticMicrograph) -> None:
    per_cm = 1e7 / made.pixel_size_nm
    image = np.round(made.image * 65535).astype(np.uint16)
    tifffile.imwrite(
        folder / "images" / f"{stem}.tif",
        image,
        resolution=(per_cm, per_cm),
        resolutionunit="CENTIMETER",
        metadata=None,
    )
    from PIL import Image

    Image.fromarray(made.mask).save(folder / "masks" / f"{stem}.png")


def _write_description(folder: Path, groups: dict[str, str], seed: int) -> None:
    by_specimen = {s: [stem for stem, group in groups.items() if group == s] for s in _SPECIMENS}
    description = {
        "source": f"made by napari-emtransfer (core.synth.voronoi), seed {seed}",
        "licence": "CC0-1.0",
        "classes": CLASSES,
        "unlabelled": 0,
        "groups": groups,
        "splits": {
            "sample": {
                "train": by_specimen["annealed"] + by_specimen["quenched"],
                "test": by_specimen["tempered"],
            }
        },
        "pixel_size_nm": dict.fromkeys(groups, PIXEL_SIZE_NM),
    }
    (folder / "dataset.json").write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")
