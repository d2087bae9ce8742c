"""`labkit get` against a server on this computer: resumed, checked, never half-unpacked."""

import hashlib
import http.server
import io
import tarfile
import threading
from pathlib import Path

import pytest

from labkit.scans import get

TASK = "Task04_Hippocampus"


def archive(task=TASK, size=300_000):
    """A tar as of the Decathlon."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name in (f"{task}/dataset.json", f"{task}/imagesTr/a.nii.gz"):
            info = tarfile.TarInfo(name)
            info.size = size
            tar.addfile(info, io.BytesIO(bytes(range(250)) * (size // 250)))
    return out.getvalue()


class Server(http.server.BaseHTTPRequestHandler):
    data, resumes, breaks_after, asked = b"", True, None, []

    def do_HEAD(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.data)))
        self.end_headers()

    def do_GET(self):
        cls, start = type(self), 0
        wanted = self.headers.get("Range")
        cls.asked.append(wanted)
        if wanted and cls.resumes:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(cls.data) - start))
        self.end_headers()
        end, cls.breaks_after = cls.breaks_after or len(cls.data), None
        self.wfile.write(cls.data[start:end])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path))
    handler = type("Handler", (Server,), {"data": archive(), "asked": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        handler.url = f"http://127.0.0.1:{serving.server_port}/{TASK}.tar"
        handler.known = {TASK: (handler.url, hashlib.md5(handler.data).hexdigest())}
        yield handler
        serving.shutdown()


def left(tmp_path: Path) -> set[str]:
    return {path.name for path in (tmp_path / "scans").iterdir()}


def test_it_says_size_and_licence_brings_the_folder_and_leaves_nothing_else(server, tmp_path):
    said = []
    folder = get.get(TASK, said.append, server.known)
    assert (folder / "imagesTr" / "a.nii.gz").stat().st_size == 300_000
    assert "CC BY-SA 4.0" in said[0] and "GB" in said[0] and str(folder) in said[0]
    assert left(tmp_path) == {TASK} and get.folder_of(Path("hippocampus")) == folder
    get.get(TASK, said.append, server.known)
    assert "there already" in said[-1] and len(server.asked) == 1


def test_what_broke_off_goes_on_where_it_was(server, tmp_path):
    server.breaks_after = 100_000
    with pytest.raises(ValueError, match="goes on where it was"):
        get.get(TASK, lambda _: None, server.known)
    assert left(tmp_path) == {f"{TASK}.tar.part"}
    get.get(TASK, lambda _: None, server.known)
    assert server.asked == [None, "bytes=100000-"] and left(tmp_path) == {TASK}


def test_a_server_that_does_not_resume_sends_all_again(server, tmp_path):
    server.breaks_after, server.resumes = 100_000, False
    with pytest.raises(ValueError):
        get.get(TASK, lambda _: None, server.known)
    get.get(TASK, lambda _: None, server.known)
    assert left(tmp_path) == {TASK}


def test_another_file_than_the_checksum_names_is_removed(server, tmp_path):
    with pytest.raises(ValueError, match="checksum"):
        get.get(TASK, lambda _: None, {TASK: (server.url, "0" * 32)})
    assert left(tmp_path) == set()


def test_no_room_is_said_before_anything_is_read(server, monkeypatch):
    monkeypatch.setattr(get.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(ValueError, match="needs 0.0 GB to be unpacked.*LABKIT_CACHE"):
        get.get(TASK, lambda _: None, server.known)
    assert server.asked == []


def test_without_a_network_it_says_so_in_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match=r"127.0.0.1:9 can't be read from .*needs the network") as refused:
        get.get(TASK, lambda _: None, {TASK: ("http://127.0.0.1:9/x.tar", "")})
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("word", ["hippocampus", "04", "4", "Task04_Hippocampus", "HIPPOCAMPUS"])
def test_a_task_is_known_by_its_organ_its_number_or_its_name(word):
    assert get.task_named(word) == TASK


def test_what_is_no_task_or_not_here_is_said_with_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match="there are braintumour, heart, liver"):
        get.task_named("knee")
    with pytest.raises(ValueError, match="`labkit get hippocampus` brings it"):
        get.folder_of(Path("hippocampus"))
    with pytest.raises(ValueError, match="There is no folder"):
        get.folder_of(tmp_path / "hippocampus")
    assert get.folder_of(tmp_path) == tmp_path
