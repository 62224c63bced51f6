"""Contact sheets of synthetic high-resolution micrographs, to be looked at beside real ones.

    python -m benchmarks.contact_sheet_hrtem FOLDER [--edge 320] [--outlines]

Writes hrtem.png and haadf.png (drawn at random), and series.png: one specimen through the study's defoci and doses, and
its structures. Outlines are the masks' edges.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from skimage.io import imsave

from benchmarks._common import finish
from napari_emtransfer.core.synth import haadf, hrtem
from napari_emtransfer.core.synth.hrtem_series import series
from napari_emtransfer.core.synth.micrograph import SyntheticMicrograph

COLUMNS = 4
SERIES_PIXEL_ANGSTROM = 0.45
OUTLINE = (255, 90, 0)


def sheet(made: Sequence[SyntheticMicrograph], columns: int = COLUMNS, *, outlines: bool = False) -> NDArray[np.uint8]:
    """Micrographs of one size side by side (H, W, 3), row by row; the last row is filled up in white."""
    tiles = [_shown(one, outlines) for one in made]
    blank = np.full_like(tiles[0], 255)
    tiles += [blank] * (-len(tiles) % columns)
    return np.vstack([np.hstack(tiles[i : i + columns]) for i in range(0, len(tiles), columns)])


def _shown(one: SyntheticMicrograph, outlines: bool) -> NDArray[np.uint8]:
    grey = np.repeat(np.round(255 * one.image).astype(np.uint8)[..., None], 3, axis=2)
    if outlines and one.boundaries is not None:
        dashed = one.boundaries & (np.indices(one.mask.shape).sum(axis=0) // 6 % 3 == 0)
        grey[dashed] = OUTLINE
    grey[-2:], grey[:, -2:] = 255, 255
    return grey


def main() -> None:
    """Write the sheets and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--edge", type=int, default=320)
    parser.add_argument("--seed", type=int, default=100)
    parser.add_argument("--outlines", action="store_true")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    shape, seeds = (args.edge, args.edge), range(args.seed, args.seed + 12)
    small = (args.edge // 2, args.edge // 2)
    through = [
        one
        for name in ("defocus", "dose", "structure")
        for _, one in series(name, small, seed=args.seed, pixel_size_angstrom=SERIES_PIXEL_ANGSTROM)
    ]
    sheets = {
        "hrtem": sheet([hrtem.simulate(shape, seed=seed) for seed in seeds], outlines=args.outlines),
        "haadf": sheet([haadf.simulate(shape, seed=seed) for seed in seeds], outlines=args.outlines),
        "series": sheet(through, 8, outlines=args.outlines),
    }
    for name, pixels in sheets.items():
        imsave(args.folder / f"{name}.png", pixels, check_contrast=False)
    finish({"benchmark": "contact_sheet_hrtem", "files": [str(args.folder / f"{name}.png") for name in sheets]})


if __name__ == "__main__":
    main()
