"""Downloads are continued where they broke off, checked, and never seen half done."""

from __future__ import annotations

import base64
import hashlib
import itertools
import threading
from pathlib import Path

import pytest

from bonseyes_dagster.client import Container
from bonseyes_dagster.client._download import fetch
from bonseyes_dagster.errors import (
    ConnectionFailedError,
    DigestMismatchError,
    NotFoundError,
    NotReadyError,
    UnexpectedAnswerError,
)
from tests.unit.client.unruly_server import Answer, Call, UnrulyServer, error, ranged

CONTENT = bytes(range(256)) * 8000
DATA = "/artifacts/a/data/m/model.onnx"


def left_over(folder: Path) -> list[str]:
    """Return what lies in a folder, partial files included."""
    return sorted(path.name for path in folder.iterdir())


def test_a_cut_download_goes_on_where_it_stopped(server: UnrulyServer, container: Container, tmp_path: Path) -> None:
    """Each piece is asked for once, under the ETag of the first."""
    server.serve_file(
        "m/model.onnx",
        CONTENT,
        Answer(CONTENT, headers={"ETag": '"v1"'}, cut_after=1_000_000),
        Answer(drop=True),
        error(503, "unavailable"),
    )
    target = container.artifact("a").download("m/model.onnx", tmp_path)
    assert target == tmp_path / "model.onnx"
    assert target.read_bytes() == CONTENT
    assert left_over(tmp_path) == ["model.onnx"]
    *_, last = server.calls
    assert (last.headers["Range"], last.headers["If-Range"]) == ("bytes=1000000-", '"v1"')


def test_a_file_that_changed_meanwhile_is_begun_anew(
    server: UnrulyServer, container: Container, tmp_path: Path
) -> None:
    """If-Range makes the server send all of it, and what came before is thrown away."""
    server.serve_file("m/model.onnx", CONTENT, Answer(b"x" * len(CONTENT), headers={"ETag": '"v0"'}, cut_after=500))
    told: list[int] = []
    container.artifact("a").download_all(tmp_path, lambda done, total: told.append(done))
    assert (tmp_path / "m/model.onnx").read_bytes() == CONTENT
    assert told[-1] == len(CONTENT)


def test_wrong_bytes_are_refused(server: UnrulyServer, container: Container, tmp_path: Path) -> None:
    """A wrong digest is a hard failure that leaves nothing behind."""
    server.serve_file("m/model.onnx", CONTENT, Answer(b"x" * len(CONTENT)))
    with pytest.raises(DigestMismatchError, match="sha256"):
        container.artifact("a").download("m/model.onnx", tmp_path / "model.onnx")
    assert left_over(tmp_path) == []


@pytest.mark.parametrize("content", [CONTENT[:-1], CONTENT + b"x", b""])
def test_a_wrong_length_is_refused(server: UnrulyServer, container: Container, tmp_path: Path, content: bytes) -> None:
    """A body that ends cleanly but short, or goes on, is not taken for the file."""
    server.serve_file("m/model.onnx", CONTENT)
    server.on("GET", DATA, Answer(content))
    with pytest.raises(DigestMismatchError, match="were promised"):
        container.artifact("a").download("m/model.onnx", tmp_path / "model.onnx")
    assert left_over(tmp_path) == []


def test_a_download_ends_where_the_manifest_says(server: UnrulyServer, container: Container, tmp_path: Path) -> None:
    """A body without end fills no disk."""
    server.serve_file("m/model.onnx", CONTENT)
    server.on("GET", DATA, Answer(chunks=itertools.repeat(CONTENT)))
    with pytest.raises(DigestMismatchError, match="more than the 2048000 bytes that were promised"):
        container.artifact("a").download("m/model.onnx", tmp_path / "model.onnx")
    with pytest.raises(UnexpectedAnswerError, match="more than 2048000 bytes"):
        container.artifact("a").read("m/model.onnx")
    assert left_over(tmp_path) == []


def test_what_was_left_by_an_interrupted_call_is_used(
    server: UnrulyServer, container: Container, tmp_path: Path
) -> None:
    """A later process asks only for the rest."""
    server.serve_file("m/model.onnx", CONTENT, *[Answer(CONTENT, cut_after=1000), error(404, "not_found")])
    with pytest.raises(NotFoundError):
        container.artifact("a").download("m/model.onnx", tmp_path)
    assert len(left_over(tmp_path)) == 1
    assert container.artifact("a").download("m/model.onnx", tmp_path).read_bytes() == CONTENT
    assert server.calls[-1].headers["Range"] == "bytes=1000-"
    assert left_over(tmp_path) == ["model.onnx"]


def test_a_spoilt_left_over_does_not_stop_it(server: UnrulyServer, container: Container, tmp_path: Path) -> None:
    """What is on the disk may be wrong: then all of it comes anew."""
    server.serve_file("m/model.onnx", CONTENT)
    part = tmp_path / f".model.onnx.{hashlib.sha256(CONTENT).hexdigest()[:16]}.part"
    for spoilt in (b"wrong", b"wrong" * len(CONTENT), b"x" * len(CONTENT)):
        part.write_bytes(spoilt)
        assert container.artifact("a").download("m/model.onnx", tmp_path).read_bytes() == CONTENT
        assert left_over(tmp_path) == ["model.onnx"]


def test_trying_ends(server: UnrulyServer, tmp_path: Path) -> None:
    """A server that always hangs up at once is given up."""
    container = Container(server.url, name="t", kind="artifacts", retry_s=0)
    server.serve_file("m/model.onnx", CONTENT)
    server.on("GET", DATA, Answer(drop=True))
    with pytest.raises(ConnectionFailedError):
        container.artifact("a").download("m/model.onnx", tmp_path)
    assert not (tmp_path / "model.onnx").exists()


def test_empty_files_arrive(server: UnrulyServer, container: Container, tmp_path: Path) -> None:
    """A file may have no bytes."""
    server.serve_file("empty", b"")
    assert container.artifact("a").download("empty", tmp_path).read_bytes() == b""
    assert container.artifact("a").read("empty") == b""


def test_two_downloads_to_one_target_do_not_disturb_each_other(
    server: UnrulyServer, container: Container, tmp_path: Path
) -> None:
    """Threads and processes may want the same file at the same time."""
    server.serve_file("m/model.onnx", CONTENT)
    failures: list[BaseException] = []

    def get() -> None:
        try:
            assert container.artifact("a").download("m/model.onnx", tmp_path).read_bytes() == CONTENT
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=get) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failures == []
    assert left_over(tmp_path) == ["model.onnx"]


def test_download_all_takes_what_is_missing(server: UnrulyServer, container: Container, tmp_path: Path) -> None:
    """What is there and right is not fetched again; what is there and wrong is."""
    server.serve_file("m/model.onnx", CONTENT)
    artifact = container.artifact("a")
    manifest = artifact.download_all(tmp_path)
    assert manifest.digest
    artifact.download_all(tmp_path)
    assert server.count("GET", DATA) == 1
    (tmp_path / "m/model.onnx").write_bytes(b"x" * len(CONTENT))
    artifact.download_all(tmp_path)
    assert server.count("GET", DATA) == 2
    assert (tmp_path / "m/model.onnx").read_bytes() == CONTENT


@pytest.mark.parametrize("path", ["../out", "/etc/out", "a/../../out", ""])
def test_a_manifest_cannot_lead_out_of_the_folder(
    server: UnrulyServer, container: Container, tmp_path: Path, path: str
) -> None:
    """Whatever a server says, only the folder is written to."""
    server.on("GET", "/artifacts/a/files", Answer([{"path": path, "size": 1, "sha256": "0" * 64}]))
    with pytest.raises(DigestMismatchError, match="outside"):
        container.artifact("a").download_all(tmp_path / "folder")
    assert left_over(tmp_path) == ["folder"]


def test_read_is_verified(server: UnrulyServer, container: Container) -> None:
    """Small files are read into memory under the same promise."""
    server.serve_file("report.json", b"{}", Answer(b"[]"))
    with pytest.raises(DigestMismatchError):
        container.artifact("a").read("report.json")
    assert container.artifact("a").read("report.json") == b"{}"
    with pytest.raises(NotFoundError, match=r"no file 'other\.json'"):
        container.artifact("a").read("other.json")


def test_not_ready_is_told_apart(server: UnrulyServer, container: Container, tmp_path: Path) -> None:
    """There is such an artifact, but nothing to fetch yet."""
    server.on("GET", "/artifacts/a/files", error(404, "not_ready", "it is running"))
    with pytest.raises(NotReadyError, match="running"):
        container.artifact("a").download_all(tmp_path)


def test_input_files_are_checked_by_what_the_server_promises(
    server: UnrulyServer, container: Container, tmp_path: Path
) -> None:
    """They have no manifest; Repr-Digest is verified instead."""
    digest = base64.b64encode(hashlib.sha256(CONTENT).digest()).decode()
    path = "/artifacts/a/input-files/images"

    def answer(call: Call) -> Answer:
        whole = ranged(call, CONTENT)
        return Answer(whole.body, whole.status, {**whole.headers, "Repr-Digest": f"sha-256=:{digest}:"})

    server.on("GET", path, Answer(CONTENT[:-1] + b"x", headers={"Repr-Digest": f"sha-256=:{digest}:"}), answer)
    with pytest.raises(DigestMismatchError):
        container.artifact("a").input_file("images", tmp_path)
    assert container.artifact("a").input_file("images", tmp_path).read_bytes() == CONTENT
    assert left_over(tmp_path) == ["images"]


def test_names_are_quoted_on_the_way(server: UnrulyServer, container: Container, tmp_path: Path) -> None:
    """A file's name may hold anything that a path may."""
    server.serve_file("a b/ü?#%.png", b"png")
    assert container.artifact("a").download("a b/ü?#%.png", tmp_path).name == "ü?#%.png"


def test_the_longest_name_is_fetched(server: UnrulyServer, container: Container, tmp_path: Path) -> None:
    """The partial file has a name as well, and a folder may know names up to 255 bytes only."""
    name = "ü" * 127
    server.serve_file(name, CONTENT)
    assert container.artifact("a").download(name, tmp_path).read_bytes() == CONTENT


def test_progress_is_told_in_bytes(server: UnrulyServer, container: Container, tmp_path: Path) -> None:
    """Restarting takes back what was told."""
    server.serve_file("m/model.onnx", CONTENT, Answer(CONTENT, cut_after=700_000), Answer(CONTENT))
    told: list[int] = []
    transport = container.transport
    fetch(transport, DATA, tmp_path / "x", size_bytes=len(CONTENT), on_bytes=told.append)
    assert sum(told) == len(CONTENT)
    assert -700_000 in told
