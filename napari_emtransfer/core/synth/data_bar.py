"""The bar that microscope software burns into the bottom of an image: settings, and a scale bar that is true."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from PIL.ImageDraw import ImageDraw as Drawing

Image32 = NDArray[np.float32]

_LEAST_ROWS: Final = 14  # below that no letter can be read
_MAX_SHARE: Final = 0.25
# Magnification is counted on a print of this width, as most makers do.
_PRINT_WIDTH_NM: Final = 127e6
_UNITS: Final = ((1e6, "mm"), (1e3, "um"), (1.0, "nm"), (0.1, "A"))  # as fonts without µ and Å write it
_Texts = Sequence[tuple[str, str]]


def n_bar_rows(height: int, share: float) -> int:
    """Rows of the bar at the bottom of an image; 0 where none is wanted, or where it would leave too little image."""
    rows = max(_LEAST_ROWS, round(share * height)) if share > 0 else 0
    return rows if rows <= _MAX_SHARE * height else 0


def draw_data_bar(image: Image32, share: float, pixel_size_nm: float, rng: Generator) -> Image32:
    """A copy of the image float32 (H, W) in 0..1 whose lowest rows hold a data bar.

    Two styles, drawn by chance: lines of text on a plain ground, and a table on black with a caption per cell.
    """
    height, width = image.shape
    rows = n_bar_rows(height, share)
    if not rows:
        return image
    table, dark = bool(rng.random() < 0.5), bool(rng.random() < 0.5)
    picture = Image.new("L", (width, rows), 0)
    draw = ImageDraw.Draw(picture)
    texts = _settings(width * pixel_size_nm, rng)
    (_draw_table if table else _draw_lines)(draw, (width, rows), pixel_size_nm, texts)
    bar = np.asarray(picture, dtype=np.float32) / 255
    if not table and not dark:
        bar = 1 - bar
    return np.vstack([image[:-rows], bar])


def nice_length_nm(wanted_nm: float) -> float:
    """The largest of 1, 2, 5 times a power of ten that is not longer than `wanted_nm`."""
    power = 10.0 ** np.floor(np.log10(wanted_nm))
    return float(power * max(step for step in (1, 2, 5) if step * power <= wanted_nm * (1 + 1e-9)))


def length_text(nm: float, digits: int = 3) -> str:
    """A length with the unit that a microscopist would choose."""
    size, unit = next((s, u) for s, u in _UNITS if nm >= s or u == "A")
    return f"{nm / size:.{digits}g} {unit}"


def _settings(width_nm: float, rng: Generator) -> _Texts:
    """What a bar says: name and value, plausible together."""
    kilovolts = float(rng.choice([1, 2, 3, 5, 10, 15, 20, 30]))
    magnification = _PRINT_WIDTH_NM / width_nm
    return (
        ("HV", f"{kilovolts:.2f} kV"),
        ("mag", _thousands(magnification)),
        ("WD", f"{rng.uniform(3, 14):.1f} mm"),
        ("det", str(rng.choice(["SE", "BSE", "SE2", "InLens", "ETD", "TLD"]))),
        ("HFW", length_text(width_nm)),
        ("curr", f"{rng.choice([0.1, 0.2, 0.4, 0.8, 1.6, 3.2])} nA"),
    )


def _thousands(magnification: float) -> str:
    digits = max(0, int(np.log10(max(magnification, 1))) - 2)
    return f"{round(magnification / 10**digits) * 10**digits:,} x".replace(",", " ")


def _draw_lines(draw: Drawing, size: tuple[int, int], pixel_size_nm: float, texts: _Texts) -> None:
    """A scale bar with end ticks on the left, settings in one or two lines beside it; white on black."""
    width, rows = size
    font = ImageFont.load_default(size=max(8, round(0.32 * rows)))
    length_nm = nice_length_nm(0.18 * width * pixel_size_nm)
    length = round(length_nm / pixel_size_nm)
    left, base, tick = round(0.02 * width), round(0.78 * rows), max(2, rows // 7)
    draw.text((left, round(0.1 * rows)), length_text(length_nm), 255, font=font)
    draw.line([(left, base), (left + length, base)], 255, max(1, rows // 30))
    for end in (left, left + length):
        draw.line([(end, base - tick), (end, base + tick)], 255, max(1, rows // 30))
    x = left + max(length, round(draw.textlength(length_text(length_nm), font=font))) + round(0.05 * width)
    for column in range(0, len(texts), 2):
        cells = [f"{name} = {value}" for name, value in texts[column : column + 2]]
        wide = max(round(draw.textlength(cell, font=font)) for cell in cells)
        if x + wide > width:
            break
        for row, cell in enumerate(cells):
            draw.text((x, round((0.1 + 0.44 * row) * rows)), cell, 255, font=font)
        x += wide + round(0.05 * width)


def _draw_table(draw: Drawing, size: tuple[int, int], pixel_size_nm: float, texts: _Texts) -> None:
    """Cells with a caption above each value, the scale bar in the last one; white on black."""
    width, rows = size
    font = ImageFont.load_default(size=max(7, round(0.36 * rows)))
    length_nm = nice_length_nm(0.22 * width * pixel_size_nm)
    length = round(length_nm / pixel_size_nm)
    draw.rectangle([0, 0, width - 1, rows - 1], outline=255)
    last = width - length - 2 * round(0.03 * width)
    x = 0
    for name, value in texts:
        wide = round(max(draw.textlength(name, font=font), draw.textlength(value, font=font))) + rows // 2
        if x + wide > last:
            break
        for row, word in enumerate((name, value)):
            draw.text((x + wide // 2, round((0.28 + 0.46 * row) * rows)), word, 255, font=font, anchor="mm")
        x += wide
        draw.line([(x, 0), (x, rows)], 255)
    middle, base = (x + width) // 2, round(0.3 * rows)
    draw.line([(middle - length // 2, base), (middle - length // 2 + length, base)], 255, max(1, rows // 25))
    for end in (middle - length // 2, middle - length // 2 + length):
        draw.line([(end, base - rows // 8), (end, base + rows // 8)], 255)
    draw.text((middle, round(0.72 * rows)), length_text(length_nm), 255, font=font, anchor="mm")
