"""A contact sheet of nanoparticles at atomic resolution, to be looked at beside real micrographs.

    python -m benchmarks.contact_sheet_hrtem [--folder resources] [--first 0]

HRTEM and HAADF with settings at random, consecutive seeds, not chosen, and the labels of a row's last; then one
specimen of the published study through its defoci and doses. 64 levels of grey keep the file small.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from benchmarks._common import finish
from napari_emtransfer.core.synth.generate import generate
from napari_emtransfer.core.synth.hrtem_series import series
from napari_emtransfer.core.synth.micrograph import SyntheticMicrograph

SHOWN, SHOWN_PX = 4, 160
CAPTION_PX, GAP_PX = 14, 3
LEVELS = 64
SERIES_PIXEL_ANGSTROM = 0.35
THROUGH = {
    "defocus": ("defocus:-20", "defocus:-10", "defocus:0", "defocus:+10", "defocus:+20"),
    "dose": ("dose:30", "dose:75", "dose:150", "dose:300", "dose:600"),
}


Picture = NDArray[np.uint8]


def greys(made: SyntheticMicrograph) -> Picture:
    """The image in few levels."""
    return (np.round(made.image * (LEVELS - 1)) * (255 // (LEVELS - 1))).astype(np.uint8)


def labels(made: SyntheticMicrograph) -> Picture:
    """Support dark, particles bright, outlines black."""
    picture = np.array([0, 70, 240], np.uint8)[made.mask]
    picture[made.boundaries] = 0
    return picture


def row(caption: str, pictures: Sequence[Picture]) -> Picture:
    """Pictures side by side below a caption."""
    gap = np.full((SHOWN_PX, GAP_PX), 255, np.uint8)
    joined = np.hstack([part for picture in pictures for part in (picture, gap)][:-1])
    above = Image.new("L", (joined.shape[1], CAPTION_PX), 255)
    ImageDraw.Draw(above).text((2, 1), caption, fill=0)
    return np.vstack([np.asarray(above), joined])


def at_random(preset: str, caption: str, first: int) -> Picture:
    """Micrographs of a preset and the labels of the last."""
    made = [generate("hrtem", preset, seed=first + i, shape=(SHOWN_PX, SHOWN_PX)) for i in range(SHOWN)]
    return row(caption, [greys(one) for one in made] + [labels(made[-1])])


def through(name: str, seed: int) -> Picture:
    """One specimen through a series."""
    made = dict(series(name, (SHOWN_PX, SHOWN_PX), seed=seed, pixel_size_angstrom=SERIES_PIXEL_ANGSTROM))
    shown = THROUGH[name]
    return row(f"one specimen: {', '.join(shown)}", [greys(made[one]) for one in shown])


def main() -> None:
    """Write nanoparticles.png."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(__file__).parents[1] / "resources")
    parser.add_argument("--first", type=int, default=0, help="first seed")
    arguments = parser.parse_args()
    first = arguments.first
    rows = [at_random("nanoparticles", "nanoparticles: HRTEM at random", first + SHOWN * i) for i in range(3)]
    rows += [at_random("haadf", "haadf: STEM-HAADF at random", first + SHOWN * i) for i in range(2)]
    rows += [through(name, first + 3) for name in THROUGH]
    path = arguments.folder / "nanoparticles.png"
    Image.fromarray(np.vstack(rows)).save(path, optimize=True)
    finish({"file": str(path), "megabytes": round(path.stat().st_size / 1e6, 2)})


if __name__ == "__main__":
    main()
