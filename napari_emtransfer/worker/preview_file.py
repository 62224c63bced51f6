"""Where the pictures of a preview lie until the window has read them."""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Final
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from napari_emtransfer.core.data.storage import storage_faults, write_atomic

# Another window may be about to read a younger one.
_KEPT_SECONDS: Final = 60.0


def write_preview(folder: Path, kind: str, images: NDArray[np.uint8], masks: NDArray[np.uint8]) -> Path:
    """Write `images` and `masks` (n, h, w) to a new .npz of this `kind`, and remove its old ones; → its path.

    Raises
    ------
    StorageError
        When it cannot be written.
    """
    buffer = io.BytesIO()
    np.savez(buffer, images=images, masks=masks)
    path = folder / f"{kind}-{uuid4().hex}.npz"
    with storage_faults(path):
        for old in folder.glob(f"{kind}-*.npz"):
            if time.time() - old.stat().st_mtime > _KEPT_SECONDS:
                old.unlink(missing_ok=True)
        write_atomic(path, buffer.getvalue())
    return path
