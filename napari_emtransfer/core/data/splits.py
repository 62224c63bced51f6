"""Splits of the labelled micrographs: how the held-out ground is chosen."""

from napari_emtransfer.core.data.split import Region, Split, check_no_leak

__all__ = ["Region", "Split", "check_no_leak"]
