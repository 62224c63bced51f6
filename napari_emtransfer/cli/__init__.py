"""The command line: everything the window does, headless, through the same requests."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from napari_emtransfer import __version__
from napari_emtransfer.cli import compute, diagnose, manage, pretrain, rank, simulate, synthesize, weights
from napari_emtransfer.cli.output import print_fault

app = typer.Typer(
    name="emtransfer",
    help="Segment electron micrographs: label a few tiles, fine-tune a network, read the held-out IoU.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
manage.register(app)
compute.register(app)
diagnose.register(app)
weights.register(app)
pretrain.register(app)
synthesize.register(app)
rank.register(app)
simulate.register(app)

# click's UsageError, which newer typers carry inside themselves.
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"napari-emtransfer {__version__}")
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None: ...


def main(argv: Sequence[str] | None = None) -> None:
    """Run one verb and leave with 0 (done), 1 (a user's error), 2 (usage) or 130 (interrupted, work banked)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        code = app(arguments, standalone_mode=False, prog_name="emtransfer")
    except _UsageError as error:
        sys.exit(_explain_usage(error, as_json="--json" in arguments))
    except (typer.Abort, KeyboardInterrupt):
        sys.exit(130)
    sys.exit(code if isinstance(code, int) else 0)


def _explain_usage(error: BaseException, *, as_json: bool) -> int:
    context = getattr(error, "ctx", None)
    path = getattr(context, "command_path", "emtransfer")
    if type(error).__name__ == "NoArgsIsHelpError":  # no verb at all: typer has printed the help
        return 2
    message = error.format_message().replace("Value error, ", "").rstrip(".")  # type: ignore[attr-defined]
    print_fault(f"{message}.", f"See: {path} --help", as_json=as_json)
    return 2
