"""Run as a child by `doctor`, so that a broken torch cannot take it along: prints what torch finds, as JSON."""

from __future__ import annotations

import json

import segmentation_models_pytorch  # noqa: F401 - fails where torch and torchvision do not fit each other
import torch
import typer

from napari_emtransfer.core.nn.devices import available_devices, describe, free_memory_gb, has_fast_bf16, resolve_device


def main() -> None:
    """Print {"torch": version, "devices": [{"description", "memory_free_gb", "bf16"}]}, best device first."""
    devices = [resolve_device(name) for name in available_devices()]
    found = [
        {"description": describe(device), "memory_free_gb": free_memory_gb(device), "bf16": has_fast_bf16(device)}
        for device in devices
    ]
    typer.echo(json.dumps({"torch": torch.__version__, "devices": found}))


if __name__ == "__main__":
    main()
