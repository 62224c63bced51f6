"""Opening micrographs of any supported format: one function, errors that a user understands."""

from __future__ import annotations

import hashlib
import importlib
import os
from pathlib import Path
from typing import Protocol, cast

from napari_emtransfer.core.data.micrograph import Micrograph, StackError
from napari_emtransfer.core.data.readers.image_data import ImageData, one_line
from napari_emtransfer.core.data.readers.sniff import SUFFIXES, sniff
from napari_emtransfer.core.errors import EMTransferError, StorageError, UnreadableFileError

__all__ = ["StackError", "checksum", "read_micrograph", "supported_suffixes"]


class _Reader(Protocol):
    def read(self, path: Path, frame: int | None) -> ImageData: ...


def read_micrograph(path: str | os.PathLike[str], *, frame: int | None = None) -> Micrograph:
    """Open one micrograph, lazily where its format allows.

    Parameters
    ----------
    frame
        Which image of a stack, from 0; may be left out where there is only one.

    Raises
    ------
    UnreadableFileError
        When the file is missing, truncated, of an unknown format, or needs an extra that is not installed.
    NotAMicrographError
        When it holds no grey image: a spectrum, a 4D-STEM set, a colour photograph.
    StackError
        When it holds several images and `frame` does not choose one; `n_frames` says how many.
    """
    path = Path(path)
    file_format = sniff(path)
    reader = cast("_Reader", importlib.import_module(f"{__name__}.{file_format}"))
    try:
        data = reader.read(path, frame)
        if 0 in data.pixels.shape:
            raise UnreadableFileError(f"{path.name!r} holds an image without pixels.", "Copy it again from its source.")
        return Micrograph.inspected(
            path.stem,
            data.pixels,
            data.pixel_size_nm,
            metadata=data.metadata,
            path=path,
            info_bar=data.info_bar,
            problems=data.problems,
        )
    except EMTransferError:
        raise
    except Exception as error:  # parsers of damaged files raise anything: this is the border
        raise UnreadableFileError(
            f"{path.name!r} cannot be read as {file_format}: {one_line(error)}.",
            "It is probably truncated or damaged; copy it again from its source.",
        ) from error


def supported_suffixes() -> frozenset[str]:
    """Suffixes that can be opened, in lower case and with the dot."""
    return frozenset(SUFFIXES)


def checksum(path: str | os.PathLike[str]) -> str:
    """BLAKE2b of a file's content (of names and contents of all files of a folder), 32 hexadecimal digits."""
    path = Path(path)
    digest = hashlib.blake2b(digest_size=16)
    try:
        for file in sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]:
            if path.is_dir():
                digest.update(file.relative_to(path).as_posix().encode())
            with file.open("rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
    except OSError as error:
        reason = error.strerror or str(error)
        raise StorageError(f"{str(path)!r} cannot be read: {reason}.", "Check the path and the rights.") from error
    return digest.hexdigest()
