"""Run as a child by `doctor`, so that a crash in a driver is only a finding: draws once with Qt and OpenGL."""

from __future__ import annotations

import json

import qtpy
import typer
from vispy import app
from vispy.gloo import gl


def main() -> None:
    """Print {"qt": binding and version, "renderer", "opengl"}; both are empty where no context can be made."""
    app.use_app(qtpy.API_NAME.lower())
    canvas = app.Canvas(size=(16, 16), show=True)
    app.process_events()
    canvas.set_current()
    found = {
        "qt": f"{qtpy.API_NAME} with Qt {qtpy.QT_VERSION}",
        "renderer": gl.glGetParameter(gl.GL_RENDERER),
        "opengl": gl.glGetParameter(gl.GL_VERSION),
    }
    typer.echo(json.dumps(found))
    canvas.close()


if __name__ == "__main__":
    main()
