"""What a file really is, by its first bytes: suffixes lie, especially after a rename."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

from napari_emtransfer.core.errors import UnreadableFileError

FileFormat = Literal["digitalmicrograph", "tia", "emd", "hspy", "bcf", "mrc", "tiff", "picture", "npy", "zarr"]

SUFFIXES: Final[dict[str, FileFormat]] = {
    ".dm3": "digitalmicrograph", ".dm4": "digitalmicrograph",
    ".ser": "tia", ".emi": "tia", ".emd": "emd", ".hspy": "hspy", ".bcf": "bcf",
    ".mrc": "mrc", ".mrcs": "mrc", ".rec": "mrc", ".st": "mrc", ".map": "mrc", ".ali": "mrc",
    ".tif": "tiff", ".tiff": "tiff", ".png": "picture", ".jpg": "picture", ".jpeg": "picture",
    ".npy": "npy", ".zarr": "zarr",
}  # fmt: skip
_MAGIC: Final[tuple[tuple[bytes, FileFormat], ...]] = (
    (b"II*\0", "tiff"), (b"MM\0*", "tiff"), (b"II+\0", "tiff"), (b"MM\0+", "tiff"),
    (b"\x89PNG\r\n\x1a\n", "picture"), (b"\xff\xd8\xff", "picture"),
    (b"\x93NUMPY", "npy"), (b"AAMVHFSS", "bcf"), (b"II\x97\x01", "tia"), (b"JK\x00\x02", "tia"),
    (b"\0\0\0\3", "digitalmicrograph"), (b"\0\0\0\4", "digitalmicrograph"),
)  # fmt: skip
_HDF5: Final = b"\x89HDF\r\n\x1a\n"
_OTHERS: Final = (
    (b"PK\3\4", "a ZIP archive"), (b"%PDF", "a PDF document"), (b"GIF8", "a GIF picture"), (b"BM", "a BMP picture"),
    (b"\x1f\x8b", "a gzip archive"), (b"Rar!", "a RAR archive"), (b"7z\xbc\xaf", "a 7-Zip archive"),
    (b"ZISRAWFILE", "a Zeiss CZI file"), (b"\xd0\xcf\x11\xe0", "an OLE document (Olympus OIB, Word, …)"),
    (b"\0\0\0\x0cjP", "a JPEG 2000 picture"), (b"RIFF", "a RIFF file (WebP, AVI)"), (b"<?xml", "an XML document"),
    (b"<!DOCTYPE", "a web page"), (b"<html", "a web page"), (b"{", "a JSON document"), (b"SIMPLE  =", "a FITS image"),
)  # fmt: skip
_KNOWN_HINT: Final = f"Supported are {', '.join(sorted(SUFFIXES))}."


def sniff(path: Path) -> FileFormat:
    """The format of a file or a Zarr folder.

    Raises
    ------
    UnreadableFileError
        When it is missing, empty, or no format that can be read; the sentence says what it is, where that is known.
    """
    if path.is_dir():
        return _sniff_folder(path)
    head = _head(path)
    found = next((name for magic, name in _MAGIC if head.startswith(magic)), None)
    if found is not None:
        return found
    if _HDF5 in (head[:8], head[512:520]):
        return _sniff_hdf5(path)
    if head[208:211] == b"MAP" or (SUFFIXES.get(path.suffix.lower()) == "mrc" and len(head) >= 1024):
        return "mrc"  # files of the nineties lack the stamp; the reader checks that the header makes sense
    raise UnreadableFileError(*_what_it_is(path, head))


def _sniff_folder(path: Path) -> FileFormat:
    if any((path / name).is_file() for name in ("zarr.json", ".zarray", ".zgroup")):
        return "zarr"
    raise UnreadableFileError(f"{path.name!r} is a folder, not a micrograph.", "Choose the files in it, or a .zarr.")


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            head = file.read(1024)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UnreadableFileError(
            f"{str(path)!r} cannot be opened: {reason}.", "Check the path and the rights."
        ) from error
    if not head:
        raise UnreadableFileError(f"{path.name!r} is empty (0 bytes).", "Copy it again from its source.")
    return head


def _sniff_hdf5(path: Path) -> FileFormat:
    # HyperSpy names itself in an attribute of the root, which lies in the first kilobytes of the file.
    with path.open("rb") as file:
        start = file.read(65536)
    if b"HyperSpy" in start and b"file_format" in start:
        return "hspy"
    return "hspy" if path.suffix.lower() == ".hspy" else "emd"


def _what_it_is(path: Path, head: bytes) -> tuple[str, str]:
    other = next((name for magic, name in _OTHERS if head.lstrip().startswith(magic)), None)
    if other is not None:
        return f"{path.name!r} is really {other}, not a micrograph.", _KNOWN_HINT
    if path.suffix.lower() in SUFFIXES:
        return (
            f"{path.name!r} does not begin like a {path.suffix.lower()} file: it is truncated, damaged or was renamed.",
            "Copy it again from its source, or give it its true suffix.",
        )
    if head.isascii() and head.replace(b"\n", b"").replace(b"\r", b"").replace(b"\t", b"").decode().isprintable():
        return f"{path.name!r} is a text file, not a micrograph.", _KNOWN_HINT
    return f"{path.name!r} is of an unknown format.", _KNOWN_HINT
