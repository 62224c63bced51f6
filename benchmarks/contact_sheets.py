"""Contact sheets of all structures after a random microscope: what a reader is to judge by eye.

    python -m benchmarks.contact_sheets [--folder resources] [--only cracks pores] [--first 0]

Rows are generators; four micrographs with consecutive seeds, not chosen, and the labels of the last: phases by their
grey, boundaries of instances black. Few levels of grey keep the files small: noise hides
the steps. All pictures of the documentation together are to stay below 2 MB.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from benchmarks._common import finish, say
from napari_emtransfer.core.synth.generate import generate
from napari_emtransfer.core.synth.micrograph import SyntheticMicrograph
from napari_emtransfer.core.synth.voronoi import GENERATORS

SHEETS = {
    "grains": ("equiaxed", "columnar", "bimodal", "twins"),
    "mixtures": ("two-phase", "three-phase", "pearlite", "ferrite-pearlite", "bainite"),
    "precipitates": ("spheroidal", "cuboidal", "needles", "core-shell"),
    "surfaces": ("pores", "cracks", "fibres", "agglomerates"),
}
SHOWN = 4
GENERATED_PX, SHOWN_PX = 384, 180
SHOWN_FROM = (GENERATED_PX - SHOWN_PX) // 2
MIDDLE = (slice(SHOWN_FROM, SHOWN_FROM + SHOWN_PX),) * 2
CAPTION_PX, GAP_PX = 14, 3
LEVELS = 32

Picture = NDArray[np.uint8]


def stretched(image: NDArray[np.floating]) -> Picture:
    """The middle, between its percentiles 0.2 and 99.8, in few levels."""
    shown = image[MIDDLE]
    low, high = np.percentile(shown, (0.2, 99.8))
    share = np.clip((shown - low) / max(high - low, 1e-6), 0, 1)
    return (np.round(share * (LEVELS - 1)) * (255 // (LEVELS - 1))).astype(np.uint8)


def labels(made: SyntheticMicrograph) -> Picture:
    """Phases as greys, boundaries between instances black."""
    greys = np.linspace(70, 240, max(len(made.classes), 2)).astype(np.uint8)
    picture = np.concatenate([[0], greys])[made.mask].astype(np.uint8)
    if made.boundaries is not None:
        picture[made.boundaries] = 0
    return picture[MIDDLE]


def row_of(name: str, first: int) -> Picture:
    """Caption, micrographs and labels of one generator, side by side."""
    made = [generate("voronoi", name, seed=first + i, shape=(GENERATED_PX, GENERATED_PX)) for i in range(SHOWN)]
    pictures = [stretched(m.image) for m in made] + [labels(made[-1])]
    gap = np.full((SHOWN_PX, GAP_PX), 255, np.uint8)
    joined = np.hstack([part for picture in pictures for part in (picture, gap)][:-1])
    caption = Image.new("L", (joined.shape[1], CAPTION_PX), 255)
    ImageDraw.Draw(caption).text((2, 1), f"{name}: {', '.join(made[0].classes)}", fill=0)
    return np.vstack([np.asarray(caption), joined])


def main() -> None:
    """Write the sheets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(__file__).parents[1] / "resources")
    parser.add_argument(
        "--only", nargs="+", choices=sorted(GENERATORS), help="one sheet of these, named structures_some"
    )
    parser.add_argument("--first", type=int, default=0, help="first seed")
    arguments = parser.parse_args()
    sheets = {"some": tuple(arguments.only)} if arguments.only else SHEETS
    total = 0
    for sheet, names in sheets.items():
        path = arguments.folder / f"structures_{sheet}.png"
        Image.fromarray(np.vstack([row_of(name, arguments.first) for name in names])).save(path, optimize=True)
        total += path.stat().st_size
        say(f"{path}: {path.stat().st_size / 1e6:.2f} MB")
    finish({"sheets": len(sheets), "megabytes": round(total / 1e6, 2)})


if __name__ == "__main__":
    main()
