"""Downloads that go on where they broke off, through pooch, and faults that say how to bring the file by hand."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from napari_emtransfer.core.data.storage import file_lock, storage_faults
from napari_emtransfer.core.errors import WeightsError

if TYPE_CHECKING:
    import requests

Progress = Callable[[int, int | None], None]
"""Called with the bytes that are there and the bytes in all (None where the server does not say)."""

_CHUNK: Final = 1 << 14  # what is lost of a connection that breaks off is less than this
_RANGE_NOT_SATISFIABLE: Final = 416


def download(
    url: str, target: Path, *, sha256: str | None = None, progress: Progress | None = None, by_hand: str = ""
) -> Path:
    """Fetch `url` to `target`, unless it is there already (and has the checksum, where one is known).

    A download that breaks off is tried again from where it stopped; what is there then stays beside the target as
    ".part", and the next call goes on with it.

    Parameters
    ----------
    by_hand
        What to do without a network, for the hint; the address is named before it.

    Raises
    ------
    WeightsError
        When the server cannot be reached, refuses, keeps breaking off, or sends a file with another checksum; there is
        no target then.
    StorageError
        When the disk is full or the folder cannot be written.
    """
    import pooch

    pooch.get_logger().setLevel(logging.WARNING)  # it would print a checksum
    with storage_faults(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    downloader = ResumingDownloader(target.with_name(target.name + ".part"), progress)
    with file_lock(target.with_name(target.name + ".lock")), storage_faults(target):
        try:
            pooch.retrieve(url, _known(sha256), fname=target.name, path=target.parent, downloader=downloader)
        except ValueError as error:  # pooch's word for another checksum
            raise _other_checksum(url, sha256) from error
        except _network_faults() as error:
            raise _not_downloaded(url, error, downloader, by_hand) from error
    return target


class ResumingDownloader:
    """A `downloader` for pooch that keeps what it has got in `part`, and asks for the rest.

    The rest is asked for with If-Range, so that a file that changed on the server meanwhile is fetched anew instead of
    being stitched together from two versions; without a strong ETag nothing is resumed.

    Parameters
    ----------
    attempts
        How often in a row a connection may break off without a byte gained.
    """

    def __init__(
        self, part: Path, progress: Progress | None = None, *, timeout_s: float = 30.0, attempts: int = 3
    ) -> None:
        self.part = part
        self._etag_path = part.with_name(part.name + ".etag")
        self._progress = progress or _unwatched
        self._timeout_s = timeout_s
        self._attempts = attempts

    @property
    def n_bytes(self) -> int:
        """Bytes that are kept."""
        return self.part.stat().st_size if self.part.is_file() else 0

    def __call__(self, url: str, output_file: str | Path, pooch: Any = None, check_only: bool = False) -> None:  # noqa: ARG002
        """Pooch's interface: fetch `url` into `output_file`. Raises `requests.RequestException`."""
        import requests

        n_fruitless = 0
        while True:
            before = self.n_bytes
            try:
                self._go_on(url)
                break
            except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError):
                n_fruitless = 0 if self.n_bytes > before else n_fruitless + 1
                if n_fruitless >= self._attempts:
                    raise
        self._etag_path.unlink(missing_ok=True)
        os.replace(self.part, output_file)  # noqa: PTH105  (pooch hands over a string)

    def _go_on(self, url: str) -> None:
        import requests

        with requests.get(url, headers=self._headers(), stream=True, timeout=self._timeout_s) as answer:
            if answer.status_code == _RANGE_NOT_SATISFIABLE:
                return self._end_of_range(url, answer)
            answer.raise_for_status()
            start = self.n_bytes if self._continues(answer) else 0
            self._keep_etag(answer)
            length = answer.headers.get("Content-Length")
            total = None if length is None else start + int(length)
            with self.part.open("ab" if start else "wb") as file:
                self._progress(start, total)
                for chunk in answer.iter_content(_CHUNK):
                    file.write(chunk)
                    self._progress(file.tell(), total)
        if total is not None and self.n_bytes < total:
            raise requests.ConnectionError(f"the connection ended at {self.n_bytes} of {total} bytes")
        return None

    def _headers(self) -> dict[str, str]:
        headers = {"Accept-Encoding": "identity"}  # ranges count the bytes of the file, not of its compressed form
        etag = self._etag_path.read_text() if self._etag_path.is_file() else ""
        if self.n_bytes and etag:
            headers |= {"Range": f"bytes={self.n_bytes}-", "If-Range": etag}
        return headers

    def _continues(self, answer: requests.Response) -> bool:
        stated = answer.headers.get("Content-Range", "")
        return answer.status_code == 206 and stated.startswith(f"bytes {self.n_bytes}-")

    def _keep_etag(self, answer: requests.Response) -> None:
        etag = answer.headers.get("ETag", "")
        self._etag_path.write_text("" if etag.startswith("W/") else etag)

    def _end_of_range(self, url: str, answer: requests.Response) -> None:
        """Nothing is left to ask for: either all is there, or the file on the server is another, shorter one."""
        if answer.headers.get("Content-Range", "") == f"bytes */{self.n_bytes}":
            return
        self.part.unlink()
        self._go_on(url)


def _unwatched(_done: int, _total: int | None) -> None: ...


def _known(sha256: str | None) -> str | None:
    return None if sha256 is None else f"sha256:{sha256}"


def _network_faults() -> tuple[type[Exception], ...]:
    import requests

    return (requests.RequestException,)


def _other_checksum(url: str, sha256: str | None) -> WeightsError:
    return WeightsError(
        f"The file that {url} sent has not the checksum sha256:{sha256}, and was thrown away.",
        "Try again; if it stays so, the file on the server is not the one that this program knows.",
    )


def _not_downloaded(url: str, error: Exception, downloader: ResumingDownloader, by_hand: str) -> WeightsError:
    answer = getattr(error, "response", None)
    kept = f" The first {downloader.n_bytes} bytes are kept: try again to go on." if downloader.n_bytes else ""
    reason = f"the server answers {answer.status_code} {answer.reason}" if answer is not None else _reason(error)
    return WeightsError(
        f"{url} could not be downloaded: {reason}.",
        f"{kept} Without a way to the internet, download {url} on another computer and {by_hand}".strip(),
    )


def _reason(error: Exception) -> str:
    import requests

    reasons: dict[type[Exception], str] = {
        requests.exceptions.ChunkedEncodingError: "the connection breaks off again and again",
        requests.Timeout: "the server does not answer",
        requests.exceptions.SSLError: "its certificate is not trusted here (REQUESTS_CA_BUNDLE names another bundle)",
        requests.exceptions.ProxyError: "the proxy does not let it through (HTTPS_PROXY names it)",
    }
    for kind, reason in reasons.items():
        if isinstance(error, kind):
            return reason
    text = str(error)
    return text if text.startswith("the connection ended") else "the server cannot be reached"
