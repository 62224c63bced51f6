"""Downloads against a real server on this machine that can break off, refuse, and change its mind."""

import hashlib
import itertools
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import requests

from napari_emtransfer.core.errors import StorageError, WeightsError
from napari_emtransfer.core.nn import download as module
from napari_emtransfer.core.nn.download import ResumingDownloader, download

CONTENT = bytes(range(256)) * 4096  # 1 MiB
K = 1 << 14
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_GET(self):
        server = self.server
        server.requests.append(dict(self.headers))
        if self.path == "/absent":
            return self.send_error(404)
        content, start = server.content, 0
        resumes = self.headers.get("If-Range") == server.etag and server.ranges
        if resumes:
            start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
        if start >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        self.send_response(206 if resumes else 200)
        if resumes:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("ETag", server.etag)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        n_bytes = next(server.lengths)
        self.wfile.write(content[start:] if n_bytes is None else content[start : start + n_bytes])
        return None


@pytest.fixture
def server():
    """Sends `content`; of each answer only the number of bytes that `lengths` says, then it hangs up."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.requests, server.content, server.etag, server.ranges = [], CONTENT, '"one"', True
    server.lengths = itertools.repeat(None)
    server.url = f"http://127.0.0.1:{server.server_address[1]}/weights.pth"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_file_arrives_whole_and_progress_is_told(server, tmp_path):
    told = []
    path = download(server.url, tmp_path / "a" / "w.pth", sha256=SHA256, progress=lambda *n: told.append(n))
    assert path.read_bytes() == CONTENT
    assert told[0] == (0, len(CONTENT))
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert told == sorted(told)
    assert sorted(p.name for p in path.parent.iterdir()) == ["w.pth", "w.pth.lock"]


def test_what_is_there_is_not_fetched_again(server, tmp_path):
    for _ in range(2):
        download(server.url, tmp_path / "w.pth", sha256=SHA256)
    assert len(server.requests) == 1


def test_a_download_that_breaks_off_goes_on_by_itself(server, tmp_path):
    server.lengths = iter([25 * K, 19 * K, None])
    assert download(server.url, tmp_path / "w.pth", sha256=SHA256).read_bytes() == CONTENT
    assert [r.get("Range") for r in server.requests] == [None, f"bytes={25 * K}-", f"bytes={44 * K}-"]


def test_the_next_call_goes_on_with_what_was_kept(server, tmp_path):
    target = tmp_path / "w.pth"
    server.lengths = itertools.chain([30 * K], itertools.repeat(0))
    with pytest.raises(WeightsError, match="the connection") as caught:
        download(server.url, target)
    assert f"The first {30 * K} bytes are kept" in caught.value.hint
    assert not target.exists()
    server.lengths, told = itertools.repeat(None), []
    download(server.url, target, sha256=SHA256, progress=lambda *n: told.append(n))
    assert target.read_bytes() == CONTENT
    assert server.requests[-1]["Range"] == f"bytes={30 * K}-"
    assert told[0] == (30 * K, len(CONTENT))


def test_a_broken_off_file_that_changed_meanwhile_is_fetched_anew(server, tmp_path):
    server.lengths = itertools.chain([30 * K], itertools.repeat(0))
    with pytest.raises(WeightsError):
        download(server.url, tmp_path / "w.pth")
    server.content, server.etag, server.lengths = CONTENT[::-1], '"two"', itertools.repeat(None)
    assert download(server.url, tmp_path / "w.pth").read_bytes() == CONTENT[::-1]


def test_a_server_without_ranges_starts_over(server, tmp_path):
    server.ranges, server.lengths = False, iter([36 * K, None])
    assert download(server.url, tmp_path / "w.pth", sha256=SHA256).read_bytes() == CONTENT


def test_a_part_that_is_whole_already_is_taken(server, tmp_path):
    (tmp_path / "w.pth.part").write_bytes(CONTENT)
    (tmp_path / "w.pth.part.etag").write_text(server.etag)
    assert download(server.url, tmp_path / "w.pth", sha256=SHA256).read_bytes() == CONTENT
    (tmp_path / "v.pth.part").write_bytes(CONTENT + b"of a longer file")
    (tmp_path / "v.pth.part.etag").write_text(server.etag)
    assert download(server.url, tmp_path / "v.pth", sha256=SHA256).read_bytes() == CONTENT


def test_another_checksum_is_thrown_away(server, tmp_path):
    with pytest.raises(WeightsError, match="has not the checksum"):
        download(server.url, tmp_path / "w.pth", sha256="0" * 64)
    assert [p.name for p in tmp_path.iterdir()] == ["w.pth.lock"]


def test_a_file_that_is_not_there_is_asked_for_once(server, tmp_path):
    url = server.url.replace("weights.pth", "absent")
    with pytest.raises(WeightsError, match="the server answers 404 Not Found"):
        download(url, tmp_path / "w.pth")
    assert len(server.requests) == 1


def test_without_a_server_the_error_says_how_to_bring_the_file(server, tmp_path):
    url = "http://127.0.0.1:9/weights.pth"  # the discard port: nobody listens
    with pytest.raises(WeightsError, match="the server cannot be reached") as caught:
        download(url, tmp_path / "w.pth", by_hand="put it at HERE.")
    assert caught.value.hint == (
        "Without a way to the internet, download http://127.0.0.1:9/weights.pth on another computer and put it at HERE."
    )


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (requests.exceptions.SSLError, "certificate is not trusted"),
        (requests.exceptions.ProxyError, "proxy does not let it through"),
        (requests.exceptions.ReadTimeout, "does not answer"),
    ],
)
def test_faults_of_the_network_are_told_apart(tmp_path, monkeypatch, fault, said):
    def fail(*args, **kwargs):
        raise fault

    monkeypatch.setattr(requests, "get", fail)
    with pytest.raises(WeightsError, match=said):
        download("https://localhost/w.pth", tmp_path / "w.pth")


def test_a_cancelled_download_keeps_what_it_has(server, tmp_path):
    def cancel(done, total):
        if done:
            raise KeyboardInterrupt

    part = tmp_path / "w.part"
    with pytest.raises(KeyboardInterrupt):
        ResumingDownloader(part, cancel)(server.url, tmp_path / "w")
    assert part.read_bytes() == CONTENT[: part.stat().st_size]
    ResumingDownloader(part)(server.url, tmp_path / "w")
    assert (tmp_path / "w").read_bytes() == CONTENT


def test_a_full_disk_is_no_fault_of_the_network(server, tmp_path, monkeypatch):
    def full(self, url):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.ResumingDownloader, "_go_on", full)
    with pytest.raises(StorageError, match="disk is full"):
        download(server.url, tmp_path / "w.pth")
