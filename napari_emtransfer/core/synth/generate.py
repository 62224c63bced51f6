"""One entry to all generators: for the window, the command line and pretraining.

micrograph = generate("voronoi", "equiaxed", seed=7)
again = regenerate(micrograph.recipe)          # the same pixels
for micrograph in stream("voronoi", seed=7):   # without end, and without a disk
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import count
from typing import Any, Unpack

import numpy as np
from pydantic import ValidationError

from napari_emtransfer.core.errors import SynthesisError
from napari_emtransfer.core.synth import recipe as recipes
from napari_emtransfer.core.synth.data_bar import draw_data_bar, n_bar_rows
from napari_emtransfer.core.synth.detector import DetectorSettings, expose
from napari_emtransfer.core.synth.micrograph import Structure, SyntheticMicrograph
from napari_emtransfer.core.synth.recipe import Drawn, Kind, Recipe, child_seed, draw_recipe
from napari_emtransfer.core.synth.scan import coordinates
from napari_emtransfer.core.synth.voronoi import GENERATORS


def generate(
    kind: Kind = "voronoi", preset: str | None = None, *, seed: int = 0, **given: Unpack[Drawn]
) -> SyntheticMicrograph:
    """A micrograph with exact labels; what is not given is drawn from the seed (see `recipe.draw_recipe`).

    Raises
    ------
    SynthesisError
        When there is no such preset, or the shape is out of range.
    """
    return realize(draw_recipe(kind, preset, seed=seed, **given))


def stream(
    kind: Kind = "voronoi", preset: str | None = None, *, seed: int = 0, start: int = 0, **given: Unpack[Drawn]
) -> Iterator[SyntheticMicrograph]:
    """Micrographs `start`, `start` + 1, … of a series without end; each is what it is, wherever one begins."""
    for number in count(start):
        yield generate(kind, preset, seed=child_seed(seed, number), **given)


def regenerate(recipe: Mapping[str, Any]) -> SyntheticMicrograph:
    """The micrograph that a recorded recipe describes.

    Raises
    ------
    SynthesisError
        When it is no recipe, or one of a generator that this version does not have.
    """
    try:
        parsed = Recipe.model_validate(recipe)
        recipes.check_preset(parsed.kind, parsed.preset)
        recipes.check_shape(parsed.shape)
        return realize(parsed)
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise SynthesisError(
            f"The recipe is wrong at {where!r}: {error.errors()[0]['msg']}.",
            "Take it unchanged from dataset.json, and use the version of the program that it names.",
        ) from error


def realize(recipe: Recipe) -> SyntheticMicrograph:
    """Recipe → micrograph; the same recipe gives the same pixels."""
    detector = recipe.detector or DetectorSettings()
    y, x = coordinates(recipe.shape, detector.scan, recipe.stream(recipes.SCAN))
    generator = GENERATORS[recipe.preset].model_validate(recipe.material)
    structure = generator(y, x, recipe.stream(recipes.STRUCTURE))
    return _exposed(structure, detector, recipe)


def _exposed(structure: Structure, detector: DetectorSettings, recipe: Recipe) -> SyntheticMicrograph:
    image = expose(structure.grey, detector, recipe.stream(recipes.DETECTOR))
    image = draw_data_bar(image, detector.info_bar, recipe.pixel_size_nm, recipe.stream(recipes.BAR))
    mask = structure.phases.astype(np.uint8)
    boundaries = structure.boundary_px < recipe.boundary_width_px / 2
    instances = structure.instances.astype(np.int32)
    bar = n_bar_rows(recipe.shape[0], detector.info_bar)
    if bar:  # a bar shows nothing of the specimen
        mask[-bar:], boundaries[-bar:], instances[-bar:] = 0, False, 0
    return SyntheticMicrograph(
        image=image,
        mask=mask,
        pixel_size_nm=recipe.pixel_size_nm,
        recipe=recipe.model_dump(mode="json"),
        classes=structure.classes,
        boundaries=boundaries,
        instances=instances,
        omits=structure.omits,
    )
