"""What all verbs share: --json and --debug, the printing of their outcome, and faults turned into exit codes."""

from __future__ import annotations

import contextlib
import functools
import inspect
import sys
import traceback
from collections.abc import Callable
from typing import Annotated, Any, get_type_hints

import typer
from pydantic import ValidationError

from napari_emtransfer.cli.output import Outcome, print_fault, print_outcome
from napari_emtransfer.core.errors import EMTransferError

Json = Annotated[bool, typer.Option("--json", help="Print exactly one JSON object, and nothing else, on stdout.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]

Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.", rich_help_panel="Compute")]
Seed = Annotated[int, typer.Option(help="Same seed, same machine: same result.", rich_help_panel="Compute")]
Threads = Annotated[int | None, typer.Option(help="Processor threads; default: all.", rich_help_panel="Compute")]

_OPTION_NAMES = {"crop_px": "crop", "tile_size_px": "tile-size", "working_pixel_size_nm": "pixel-size-nm"}


class RunFailedError(EMTransferError):
    """A run that failed elsewhere, with the traceback of that place."""

    def __init__(self, message: str, hint: str, remote_traceback: str) -> None:
        super().__init__(message, hint)
        self.remote_traceback = remote_traceback


def add_verb(app: typer.Typer, name: str, function: Callable[..., Outcome]) -> None:
    """Make `function` a verb: its parameters are the options, its outcome is printed."""

    @functools.wraps(function)
    def run(*args: Any, json: bool, debug: bool, **kwargs: Any) -> int:
        return _perform(functools.partial(function, *args, **kwargs), as_json=json, debug=debug)

    hints = get_type_hints(function, include_extras=True) | {"json": Json, "debug": Debug, "return": int}
    signature = inspect.signature(function)
    parameters = [p.replace(annotation=hints[p.name]) for p in signature.parameters.values()]
    parameters += [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=hints[name])
        for name in ("json", "debug")
    ]
    run.__signature__ = signature.replace(parameters=parameters, return_annotation=int)  # type: ignore[attr-defined]
    run.__annotations__ = hints
    app.command(name)(run)


def _perform(function: Callable[[], Outcome], *, as_json: bool, debug: bool) -> int:
    # Libraries that print would spoil the one JSON object.
    quiet = contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext()
    try:
        with quiet:
            outcome = function()
    except (typer.Exit, typer.BadParameter):
        raise
    except Exception as error:
        if debug:
            typer.echo(_traceback(error), err=True)
        print_fault(*_explain(error, debug=debug), as_json=as_json)
        return 1
    print_outcome(outcome, as_json=as_json)
    return outcome.exit_code


def _explain(error: Exception, *, debug: bool) -> tuple[str, str]:
    """(message, hint) of a fault."""
    match error:
        case EMTransferError():
            return error.message, error.hint
        case ValidationError():
            return _explain_validation(error), ""
        case OSError() if error.filename is not None:
            return f"{error.filename}: {error.strerror}.", ""
    hint = "" if debug else "Run again with --debug to see where, and please report it."
    return f"An internal fault: {type(error).__name__}: {error}", hint


def _explain_validation(error: ValidationError) -> str:
    first = error.errors()[0]
    field = str(first["loc"][0]) if first["loc"] else ""
    option = _OPTION_NAMES.get(field, field).replace("_", "-")
    rule = first["msg"].removeprefix("Value error, ")
    return f"--{option} is {first['input']!r}: {rule}." if field else f"{rule}."


def _traceback(error: Exception) -> str:
    remote = getattr(error, "remote_traceback", "")
    return remote or "".join(traceback.format_exception(error))
