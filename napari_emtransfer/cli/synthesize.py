"""The verb that makes synthetic micrographs with exact masks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from napari_emtransfer.cli.output import Outcome, format_table
from napari_emtransfer.cli.perform import perform
from napari_emtransfer.cli.verb import Seed, add_verb
from napari_emtransfer.core.errors import SynthesisError
from napari_emtransfer.worker.protocol import SynthesizeRequest

Generator = Literal["voronoi", "hrtem"]


def register(app: typer.Typer) -> None:
    """Add this module's verb."""
    add_verb(app, "synthesize", synthesize)


def synthesize(
    generator: Annotated[Generator, typer.Argument(metavar="voronoi|hrtem", help="What makes them.")],
    out: Annotated[
        Path | None, typer.Argument(metavar="[OUT]", help="Folder of the data set; it must not exist, or be empty.")
    ] = None,
    n: Annotated[int, typer.Option("-n", "--n", help="How many micrographs.")] = 8,
    preset: Annotated[
        list[str] | None,
        typer.Option(help="Which structure; repeat it for several. Default: any, of hrtem nanoparticles. See --list."),
    ] = None,
    shape: Annotated[str, typer.Option(help="Height and width in pixels, as 512 or 384x512.")] = "512",
    pixel_size_nm: Annotated[float | None, typer.Option(help="Default: 25, or the preset's own.")] = None,
    per_specimen: Annotated[int, typer.Option(help="Micrographs that share a material.")] = 4,
    instrument: Annotated[
        Literal["sem", "fib-sem", "camera"] | None, typer.Option(help="Whose faults and noise; default: any.")
    ] = None,
    flat_field: Annotated[
        list[Path] | None,
        typer.Option(
            help="An image of your own instrument: its noise is measured and used. Two frames of one field are better: "
            "repeat the option."
        ),
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="Show the presets and make nothing.")] = False,
    seed: Seed = 0,
) -> Outcome:
    """Make micrographs with exact masks, boundaries and instances; `emtransfer import PROJECT OUT` reads them."""
    if list_:
        return _listed(generator)
    if out is None:
        raise typer.BadParameter("Name the folder OUT to write to, or ask for --list.")
    request = SynthesizeRequest(
        run_id="synthesize",
        generator=generator,
        out=out,
        n=n,
        presets=tuple(preset or ()),
        shape=parse_shape(shape),
        seed=seed,
        pixel_size_nm=pixel_size_nm,
        per_specimen=per_specimen,
        instrument=instrument,
        flat_field=tuple(flat_field or ()),
    )
    result, code = perform(request)
    return Outcome(result, _describe(result), code)


def parse_shape(text: str) -> tuple[int, int]:
    """'512' or '384x512' → (H, W).

    Raises
    ------
    SynthesisError
        When it is neither.
    """
    edges = text.lower().replace("×", "x").split("x")
    if not (len(edges) in (1, 2) and all(edge.strip().isdecimal() for edge in edges)):
        raise SynthesisError(f"--shape is {text!r}, but must be pixels as 512 or HEIGHTxWIDTH.", "For example 384x512.")
    return int(edges[0]), int(edges[-1])


def _listed(generator: Generator) -> Outcome:
    from napari_emtransfer.core.synth.recipe import presets

    known = dict(presets(generator))
    return Outcome({"generator": generator, "presets": known}, format_table([[name, known[name]] for name in known]))


def _describe(result: dict[str, Any]) -> str:
    if not result.get("images"):
        return "Stopped before the first micrograph; nothing was written."
    made, wanted = len(result["images"]), result["n_wanted"]
    count = f"{made}" if made == wanted else f"{made} of {wanted}"
    lines = [
        f"{result['dataset']}: {count} micrograph(s) of {len(result['specimens'])} specimen(s), "
        f"{result['seconds_per_image']:.2f} s each",
        f"Classes: {', '.join(result['classes'])}",
    ]
    if result["omits"]:
        lines.append(f"They omit: {'; '.join(result['omits'])}")
    return "\n".join([*lines, f"Go on with: emtransfer import PROJECT {result['dataset']}"])
