"""One entry to all generators: for the window, the command line and pretraining.

micrograph = generate("voronoi", "equiaxed", seed=7)
again = regenerate(micrograph.recipe)          # the same pixels
for micrograph in stream("voronoi", seed=7):   # without end, and without a disk
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import count
from typing import Any, Final, Unpack

import numpy as np
from pydantic import ValidationError

from napari_emtransfer.core.errors import SynthesisError
from napari_emtransfer.core.synth import atomic
from napari_emtransfer.core.synth import recipe as recipes
from napari_emtransfer.core.synth.data_bar import draw_data_bar, n_bar_rows
from napari_emtransfer.core.synth.detector import DetectorSettings, expose
from napari_emtransfer.core.synth.micrograph import Structure, SyntheticMicrograph
from napari_emtransfer.core.synth.recipe import Drawn, Kind, Recipe, child_seed, draw_recipe
from napari_emtransfer.core.synth.scan import Grid, coordinates
from napari_emtransfer.core.synth.voronoi import GENERATORS, StructureGenerator

_FRAME_PX: Final = 10.0  # as far as most scans stray


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
    if recipe.kind == "hrtem":
        made = atomic.realize(recipe.preset, recipe.material, shape=recipe.shape, seed=recipe.seed)
        return replace(made, recipe=recipe.model_dump(mode="json"))
    detector = recipe.detector or DetectorSettings()
    y, x = coordinates(recipe.shape, detector.scan, recipe.stream(recipes.SCAN))
    generator = GENERATORS[recipe.preset].model_validate(recipe.material)
    structure = _in_one_frame(generator, y, x, recipe)
    return _exposed(structure, detector, recipe)


def _in_one_frame(generator: StructureGenerator, y: Grid, x: Grid, recipe: Recipe) -> Structure:
    """The structure at the coordinates (H, W), as part of a plane that does not depend on the scan's faults.

    A generator sows over the frame that its coordinates span. One row more at either end takes that frame to a fixed
    size, so that another scan shows the same specimen; both rows are cut off again.
    """
    height, width = recipe.shape
    y, x = (np.vstack([axis[:1], axis, axis[-1:]]) for axis in (y, x))
    y[0, 0], x[0, 0] = min(-_FRAME_PX, y.min()), min(-_FRAME_PX, x.min())
    y[-1, -1], x[-1, -1] = max(height + _FRAME_PX, y.max()), max(width + _FRAME_PX, x.max())
    made = generator(y, x, recipe.stream(recipes.STRUCTURE))
    planes = {name: getattr(made, name)[1:-1] for name in ("grey", "phases", "boundary_px", "instances")}
    return replace(made, **planes)


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
