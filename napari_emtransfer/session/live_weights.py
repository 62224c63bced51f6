"""On which weights the live head stands: those of the model in use, else such as are at hand without a network."""

from __future__ import annotations

from typing import Final

from napari_emtransfer.core.config import LiveConfig
from napari_emtransfer.core.errors import EMTransferError
from napari_emtransfer.core.nn import store

AT_HAND: Final = ("bundled", "imported")
"""Families of weights that the user has, best first."""


def live_config(model_run: str | None) -> LiveConfig:
    """The features of the run in use; before the first one, weights at hand; without any, filters alone."""
    if model_run is not None:
        return LiveConfig(weights=f"run:{model_run}")
    try:
        entries = store.all_entries()
    except EMTransferError:  # a card that cannot be read is told where weights are chosen
        return LiveConfig()
    for family in AT_HAND:
        for entry in entries:
            if entry.family == family and entry.encoder is not None and store.is_here(entry):
                return LiveConfig(weights=entry.name, encoder=entry.encoder)
    return LiveConfig()
