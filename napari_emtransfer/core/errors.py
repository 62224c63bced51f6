"""Errors a user can act on: one sentence that names the value and the rule, and a hint that would work."""

from __future__ import annotations

from typing import ClassVar


class EMTransferError(Exception):
    """A fault that the user, not the programmer, can mend.

    Parameters
    ----------
    message
        One sentence: the bad value and the rule that it breaks.
    hint
        What would work instead; may be empty.
    """

    kind: ClassVar[str] = "error"

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".rstrip()


class UnreadableFileError(EMTransferError):
    """The file is truncated, renamed, of an unknown format, or needs an extra that is not installed."""

    kind = "unreadable_file"


class NotAMicrographError(EMTransferError):
    """The file can be read but is no single-channel image: a spectrum, a 4D-STEM set, a colour photograph."""

    kind = "not_a_micrograph"


class ProjectError(EMTransferError):
    """The project folder is missing, newer than the program, read-only, or asked for something it lacks."""

    kind = "project"


class StorageError(EMTransferError):
    """Writing failed: disk full, permission denied, or locked by another program."""

    kind = "storage"


class LabelError(EMTransferError):
    """Labels that cannot be learnt from: none, one class only, an unknown value, a mask of another size."""

    kind = "label"


class SplitError(EMTransferError):
    """No honest split into training and held-out data is possible as asked."""

    kind = "split"


class WeightsError(EMTransferError):
    """Weights that are missing, do not fit the architecture, or cannot be loaded safely."""

    kind = "weights"


class DeviceError(EMTransferError):
    """The device asked for is absent, or out of memory beyond what a smaller batch can mend."""

    kind = "device"


class RateError(EMTransferError):
    """A learning rate that would destroy what pretrained weights know, and that nobody confirmed."""

    kind = "rate"


class AugmentationError(EMTransferError):
    """A transform that does not exist, or nothing to show one on."""

    kind = "augmentation"


class FlatFieldError(EMTransferError):
    """Images from which the noise of an instrument cannot be measured: saturated, too even, processed."""

    kind = "flat_field"


class SynthesisError(EMTransferError):
    """Synthetic micrographs that cannot be made as asked: no such preset, a shape out of range, a folder in use."""

    kind = "synthesis"
