"""On which weights a live head stands, or a first training: such as are at hand without a network."""

from __future__ import annotations

from typing import Final

from napari_emtransfer.core.config import LiveConfig
from napari_emtransfer.core.errors import EMTransferError
from napari_emtransfer.core.nn import store
from napari_emtransfer.core.nn.registry import WeightsEntry

AT_HAND: Final = ("bundled", "imported")
"""Families of weights that the user has, best first."""


def live_config(model_run: str | None) -> LiveConfig:
    """The features of the run in use; before the first one, weights at hand; without any, filters alone."""
    if model_run is not None:
        return LiveConfig(weights=f"run:{model_run}")
    entry = weights_at_hand()
    return LiveConfig() if entry is None else LiveConfig(weights=entry.name, encoder=entry.encoder or "")


def weights_at_hand() -> WeightsEntry | None:
    """The best weights of a known encoder that can be used without a network; None where there are none."""
    try:
        entries = store.all_entries()
    except EMTransferError:  # a card that cannot be read is told where weights are chosen
        return None
    known = [entry for entry in entries if entry.encoder is not None]
    ordered = (entry for family in AT_HAND for entry in known if entry.family == family)
    return next((entry for entry in ordered if store.is_here(entry)), None)
