"""Downloads resume where they broke off, verify their bytes, and never leave a partial file as the target."""

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
from tests.unit.client.scripted_server import Answer, Call, ScriptedServer, error, ranged

CONTENT = bytes(range(256)) * 8000
DATA = "/artifacts/a/data/m/model.onnx"


def left_over(folder: Path) -> list[str]:
    """Return the names of the files in a folder, partial files included."""
    return sorted(path.name for path in folder.iterdir())


def test_broken_download_resumes_where_it_stopped(server: ScriptedServer, container: Container, tmp_path: Path) -> None:
    """It requests each byte once, under the ETag of the first answer."""
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


def test_changed_file_is_downloaded_from_the_start(
    server: ScriptedServer, container: Container, tmp_path: Path
) -> None:
    """If-Range makes the server send the whole file, and the client throws away the earlier bytes."""
    server.serve_file("m/model.onnx", CONTENT, Answer(b"x" * len(CONTENT), headers={"ETag": '"v0"'}, cut_after=500))
    reported: list[int] = []
    container.artifact("a").download_all(tmp_path, lambda done, total: reported.append(done))
    assert (tmp_path / "m/model.onnx").read_bytes() == CONTENT
    assert reported[-1] == len(CONTENT)


def test_wrong_digest_is_refused(server: ScriptedServer, container: Container, tmp_path: Path) -> None:
    """A wrong digest is an error, and leaves no file behind."""
    server.serve_file("m/model.onnx", CONTENT, Answer(b"x" * len(CONTENT)))
    with pytest.raises(DigestMismatchError, match="sha256"):
        container.artifact("a").download("m/model.onnx", tmp_path / "model.onnx")
    assert left_over(tmp_path) == []


@pytest.mark.parametrize("content", [CONTENT[:-1], CONTENT + b"x", b""])
def test_wrong_length_is_refused(server: ScriptedServer, container: Container, tmp_path: Path, content: bytes) -> None:
    """A body that ends too early or too late is not the file, even if the connection ends cleanly."""
    server.serve_file("m/model.onnx", CONTENT)
    server.on("GET", DATA, Answer(content))
    with pytest.raises(DigestMismatchError, match="promised"):
        container.artifact("a").download("m/model.onnx", tmp_path / "model.onnx")
    assert left_over(tmp_path) == []


def test_endless_body_ends_at_the_length_of_the_manifest(
    server: ScriptedServer, container: Container, tmp_path: Path
) -> None:
    """A server must not be able to fill the client's disk or memory."""
    server.serve_file("m/model.onnx", CONTENT)
    server.on("GET", DATA, Answer(chunks=itertools.repeat(CONTENT)))
    with pytest.raises(DigestMismatchError, match="more than the promised 2048000 bytes"):
        container.artifact("a").download("m/model.onnx", tmp_path / "model.onnx")
    with pytest.raises(UnexpectedAnswerError, match="more than 2048000 bytes"):
        container.artifact("a").read("m/model.onnx")
    assert left_over(tmp_path) == []


def test_later_call_resumes_an_interrupted_download(
    server: ScriptedServer, container: Container, tmp_path: Path
) -> None:
    """A later process requests only the missing bytes."""
    server.serve_file("m/model.onnx", CONTENT, *[Answer(CONTENT, cut_after=1000), error(404, "not_found")])
    with pytest.raises(NotFoundError):
        container.artifact("a").download("m/model.onnx", tmp_path)
    assert len(left_over(tmp_path)) == 1
    assert container.artifact("a").download("m/model.onnx", tmp_path).read_bytes() == CONTENT
    assert server.calls[-1].headers["Range"] == "bytes=1000-"
    assert left_over(tmp_path) == ["model.onnx"]


def test_wrong_partial_file_is_downloaded_anew(server: ScriptedServer, container: Container, tmp_path: Path) -> None:
    """The partial file on the disk may be damaged."""
    server.serve_file("m/model.onnx", CONTENT)
    part = tmp_path / f".model.onnx.{hashlib.sha256(CONTENT).hexdigest()[:16]}.part"
    for wrong in (b"wrong", b"wrong" * len(CONTENT), b"x" * len(CONTENT)):
        part.write_bytes(wrong)
        assert container.artifact("a").download("m/model.onnx", tmp_path).read_bytes() == CONTENT
        assert left_over(tmp_path) == ["model.onnx"]


@pytest.mark.slow
def test_download_gives_up_after_fruitless_tries(server: ScriptedServer, tmp_path: Path) -> None:
    """A server that always hangs up must not block the caller for ever."""
    container = Container(server.url, name="t", kind="artifacts", retry_s=0)
    server.serve_file("m/model.onnx", CONTENT)
    server.on("GET", DATA, Answer(drop=True))
    with pytest.raises(ConnectionFailedError):
        container.artifact("a").download("m/model.onnx", tmp_path)
    assert not (tmp_path / "model.onnx").exists()


def test_empty_file_is_downloaded(server: ScriptedServer, container: Container, tmp_path: Path) -> None:
    """An empty file needs no range request, which could not succeed."""
    server.serve_file("empty", b"")
    assert container.artifact("a").download("empty", tmp_path).read_bytes() == b""
    assert container.artifact("a").read("empty") == b""


def test_concurrent_downloads_to_one_target_succeed(
    server: ScriptedServer, container: Container, tmp_path: Path
) -> None:
    """Threads and processes may download the same file at the same time."""
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


def test_download_all_fetches_only_missing_and_wrong_files(
    server: ScriptedServer, container: Container, tmp_path: Path
) -> None:
    """A second call must not download everything again."""
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
def test_manifest_path_outside_of_the_folder_is_refused(
    server: ScriptedServer, container: Container, tmp_path: Path, path: str
) -> None:
    """A server must not choose where the client writes."""
    server.on("GET", "/artifacts/a/files", Answer([{"path": path, "size": 1, "sha256": "0" * 64}]))
    with pytest.raises(DigestMismatchError, match="outside"):
        container.artifact("a").download_all(tmp_path / "folder")
    assert left_over(tmp_path) == ["folder"]


def test_read_is_verified(server: ScriptedServer, container: Container) -> None:
    """A file that is read into memory is verified, too."""
    server.serve_file("report.json", b"{}", Answer(b"[]"))
    with pytest.raises(DigestMismatchError):
        container.artifact("a").read("report.json")
    assert container.artifact("a").read("report.json") == b"{}"
    with pytest.raises(NotFoundError, match=r"no file 'other\.json'"):
        container.artifact("a").read("other.json")


def test_download_of_a_running_artifact_raises_not_ready(
    server: ScriptedServer, container: Container, tmp_path: Path
) -> None:
    """The caller can tell a running artifact from a missing one."""
    server.on("GET", "/artifacts/a/files", error(404, "not_ready", "it is running"))
    with pytest.raises(NotReadyError, match="running"):
        container.artifact("a").download_all(tmp_path)


def test_input_file_is_verified_by_repr_digest(server: ScriptedServer, container: Container, tmp_path: Path) -> None:
    """Input files have no manifest with their digests."""
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


def test_special_characters_in_file_names_are_quoted(
    server: ScriptedServer, container: Container, tmp_path: Path
) -> None:
    """A file's name may hold any character that a path may hold."""
    server.serve_file("a b/ü?#%.png", b"png")
    assert container.artifact("a").download("a b/ü?#%.png", tmp_path).name == "ü?#%.png"


def test_file_with_the_longest_name_is_downloaded(server: ScriptedServer, container: Container, tmp_path: Path) -> None:
    """The partial file has a longer name, and a file system may allow 255 bytes only."""
    name = "ü" * 127
    server.serve_file(name, CONTENT)
    assert container.artifact("a").download(name, tmp_path).read_bytes() == CONTENT


def test_progress_counts_received_and_discarded_bytes(
    server: ScriptedServer, container: Container, tmp_path: Path
) -> None:
    """A restart reports the discarded bytes as a negative number."""
    server.serve_file("m/model.onnx", CONTENT, Answer(CONTENT, cut_after=700_000), Answer(CONTENT))
    reported: list[int] = []
    transport = container.transport
    fetch(transport, DATA, tmp_path / "x", size_bytes=len(CONTENT), on_bytes=reported.append)
    assert sum(reported) == len(CONTENT)
    assert -700_000 in reported
