"""A tool container keeps its promises to many clients at once: one winner, one order, one artifact per key."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from bonseyes_dagster.client import Artifact
from bonseyes_dagster.errors import (
    ConflictError,
    InvalidError,
    NotFoundError,
    QueueFullError,
    StorageFullError,
    TooLargeError,
    UnavailableError,
)
from bonseyes_dagster.tool.artifacts.index import Index
from bonseyes_dagster.tool.artifacts.layout import Volume
from bonseyes_dagster.tool.artifacts.row_copies import read_row_copy
from tests.contract.tools.server import ToolServer, tool_server, tool_servers
from tests.waiting import free_port, until


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[ToolServer]]:
    """Start a `probe`, a `consumer` of its artifacts, and a `program`."""
    with tool_servers(tmp_path_factory.mktemp("tools"), "probe", "consumer", "program") as started:
        yield started


@pytest.fixture
def probe(servers: list[ToolServer]) -> ToolServer:
    """Return the probe."""
    return servers[0]


_count = iter(range(10**6))


def made(server: ToolServer, **parameters: Any) -> Artifact:
    """Return a completed artifact."""
    artifact = server.container.create(f"m{next(_count)}", {"act": "write", **parameters})
    assert artifact.wait(timeout_s=30).phase == "completed"
    return artifact


def test_one_of_64_creates_of_a_name_gets_200(probe: ToolServer) -> None:
    """All others get 409, also in other server processes."""
    assert len(probe.workers) == 2
    barrier = threading.Barrier(64)

    def create(number: int) -> int:
        barrier.wait(30)
        body = {"name": "race", "parameters": {"act": "write", "text": str(number)}}
        return requests.post(f"{probe.url}/artifacts", json=body, timeout=30).status_code

    with ThreadPoolExecutor(64) as pool:
        codes = list(pool.map(create, range(64)))
    assert sorted(codes) == [200] + [409] * 63
    winner = probe.container.artifact("race")
    assert winner.wait(timeout_s=20).phase == "completed"
    assert winner.read("real") == str(codes.index(200)).encode()


def test_refused_uploads_of_a_taken_name_leave_nothing(probe: ToolServer) -> None:
    """Their files are removed."""
    before = len([*probe.volume.glob("artifacts/*")])

    def create(number: int) -> int:
        files = {
            "name": (None, "upload-race"),
            "data": (None, '{"act": "write"}'),
            "some-file": ("file", os.urandom(100_000)),
        }
        return requests.post(f"{probe.url}/artifacts", files=files, timeout=30).status_code

    with ThreadPoolExecutor(8) as pool:
        codes = list(pool.map(create, range(8)))
    assert sorted(codes) == [200] + [409] * 7
    probe.container.artifact("upload-race").wait(timeout_s=20)
    assert len([*probe.volume.glob("artifacts/*")]) == before + 1
    assert not [*probe.volume.glob("drafts/*")]


def test_queue_keeps_the_order_of_creation(probe: ToolServer) -> None:
    """One artifact runs at a time."""
    artifacts = [probe.container.create(f"order{number}", {"act": "write"}) for number in range(10)]
    statuses = [artifact.wait(timeout_s=30) for artifact in artifacts]
    for before, after in itertools.pairwise(statuses):
        assert str(before.finished) <= str(after.started)


def test_repeated_request_with_a_key_gives_the_same_artifact(probe: ToolServer) -> None:
    """In every phase of the artifact, and it is never made twice."""
    first = probe.container.create("keyed", {"act": "write"}, idempotency_key="key-1")
    assert first.wait(timeout_s=20).phase == "completed"
    again = probe.container.create("keyed", {"act": "write"}, idempotency_key="key-1")
    assert again.name == "keyed"
    with pytest.raises(InvalidError):
        probe.container.create("keyed", {"act": "raise"}, idempotency_key="key-1")
    with pytest.raises(InvalidError):
        probe.container.create("other", {"act": "write"}, idempotency_key="key-1")
    with pytest.raises(ConflictError):
        probe.container.create("keyed", {"act": "write"}, idempotency_key="key-2")
    first.delete()
    probe.container.create("keyed", {"act": "raise"}, idempotency_key="key-1").delete()


def test_key_with_another_file_gets_422(probe: ToolServer) -> None:
    """Another file makes it another request."""

    def post(content: bytes) -> int:
        files = {"name": (None, "keyfile"), "data": (None, '{"act": "write"}'), "some-file": ("f", content)}
        headers = {"Idempotency-Key": "key-of-files"}
        return requests.post(f"{probe.url}/artifacts", files=files, headers=headers, timeout=30).status_code

    assert [post(b"one"), post(b"one"), post(b"two")] == [200, 200, 422]


def test_parallel_requests_with_one_key_all_get_200(probe: ToolServer) -> None:
    """They all get the one artifact."""

    def post(_: int) -> int:
        body = {"name": "parallel", "parameters": {"act": "write"}}
        headers = {"Idempotency-Key": "parallel"}
        return requests.post(f"{probe.url}/artifacts", json=body, headers=headers, timeout=30).status_code

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(post, range(16))) == [200] * 16


def test_re_use_links_the_files(probe: ToolServer) -> None:
    """An artifact can be deleted without harm to the other."""
    source = made(probe, text="expensive")
    copy = probe.container.create(f"copy{next(_count)}", {"act": "write", "text": "expensive"}, reuse=True)
    status = copy.status()
    assert (status.phase, status.reused_from) == ("completed", source.name)
    assert status.digest == source.status().digest
    assert b"".join(copy.iter_log()) == b"".join(source.iter_log()) != b""
    inodes = {
        path.stat().st_ino for path in probe.volume.glob("artifacts/*/data/real") if path.read_text() == "expensive"
    }
    assert len(inodes) == 1
    source.delete()
    assert copy.read("real") == b"expensive"
    third = probe.container.create(f"copy{next(_count)}", {"act": "write", "text": "expensive"}, reuse=True)
    assert third.status().reused_from == copy.name
    other = probe.container.create(f"copy{next(_count)}", {"act": "write", "text": "other"}, reuse=True)
    assert other.wait(timeout_s=20).reused_from is None


def test_failed_artifact_is_not_re_used(probe: ToolServer) -> None:
    """A new attempt may succeed."""
    failed = probe.container.create(f"f{next(_count)}", {"act": "raise", "text": "again"})
    failed.wait(timeout_s=20)
    again = probe.container.create(f"f{next(_count)}", {"act": "raise", "text": "again"}, reuse=True)
    assert again.wait(timeout_s=20).reused_from is None


def test_artifact_is_read_by_another_container(servers: list[ToolServer]) -> None:
    """It is downloaded and verified. Both forms of its name give the same result."""
    probe, consumer, _ = servers
    source = made(probe, text="from afar")
    for value in (f"probe/{source.name}", f"http://probe/artifacts/{source.name}"):
        copy = consumer.container.create(f"c{next(_count)}", {"first": value})
        status = copy.wait(timeout_s=30)
        assert status.phase == "completed", status.reason
        assert copy.read("copy") == b"from afar"
        about = copy.read("about").decode()
        assert about == f"probe/{source.name} http://probe/artifacts/{source.name} {source.status().digest}"
        assert copy.input_parameters()["first"] == f"http://probe/artifacts/{source.name}"
    assert not [*consumer.volume.glob("artifacts/*/artifacts")]


def test_create_with_a_wrong_input_artifact_is_refused(servers: list[ToolServer]) -> None:
    """Type, existence and completeness are checked before the tool runs."""
    probe, consumer, _ = servers
    failed = probe.container.create(f"f{next(_count)}", {"act": "raise"})
    failed.wait(timeout_s=20)
    wrong = {
        "probe/nothing-there": "has no artifact",
        f"probe/{failed.name}": "is failed",
        "consumer/any": "makes com.bonseyes.consumed",
        "stranger/any": "no container",
    }
    for value, sentence in wrong.items():
        with pytest.raises(InvalidError) as caught:
            consumer.container.create(f"c{next(_count)}", {"first": value, "second": value})
        assert set(caught.value.detail) == {"first", "second"}
        assert sentence in caught.value.detail["first"]


def test_missing_file_of_an_input_is_named(servers: list[ToolServer]) -> None:
    """The reason also names existing files."""
    probe, consumer, _ = servers
    source = made(probe, text="one")
    made_of_it = consumer.container.create(f"c{next(_count)}", {"first": f"probe/{source.name}", "path": "none"})
    assert made_of_it.wait(timeout_s=30).reason == f"probe/{source.name} has no file 'none'; it has real."


def test_replaced_input_fails_the_artifact(servers: list[ToolServer]) -> None:
    """An artifact is made from the requested input or not at all."""
    probe, consumer, _ = servers
    source = made(probe, text="one")
    [worker] = [psutil.Process(consumer.mule)]
    worker.suspend()
    try:
        waiting = consumer.container.create(f"c{next(_count)}", {"first": f"probe/{source.name}"})
        source.delete()
        probe.container.create(source.name, {"act": "write", "text": "two"}).wait(timeout_s=20)
    finally:
        worker.resume()
    status = waiting.wait(timeout_s=30)
    assert (status.phase, status.reason) == (
        "failed",
        f"The artifact probe/{source.name} was replaced since it was given as input.",
    )


def test_program_gets_its_parameters_as_arguments(servers: list[ToolServer]) -> None:
    """Each value is one argument that no shell changes. Files and artifacts are paths."""
    probe, _, program = servers
    source = made(probe, text="input")
    nasty = "a; echo 'b' $(c) `d`\n--e"
    files = {
        "name": (None, "program"),
        "data": (None, json.dumps({"text": nasty, "artifact-in": f"probe/{source.name}"})),
        "file": ("in put.txt", b"content"),
    }
    requests.post(f"{program.url}/artifacts", files=files, timeout=30).raise_for_status()
    artifact = program.container.artifact("program")
    status = artifact.wait(timeout_s=30)
    assert status.phase == "completed", status.reason
    argv = json.loads(artifact.read("argv.json"))
    assert argv[:4] == ["--text", nasty, "--count=3", "--flag=true"]
    assert argv[4].endswith("/inputs/file/in put.txt") and len(argv) == 7
    assert argv[6].startswith("--out=/")
    parameters = json.loads(artifact.read("parameters.json"))
    assert parameters["missing"] is None and parameters["count"] == 3
    assert artifact.metrics() == ["speed"]
    assert status.progress.message == "half"
    assert b"the program ends\n" in b"".join(artifact.iter_log())
    failed = program.container.create("program2", {"status": 5}).wait(timeout_s=30)
    assert (failed.phase, failed.reason) == ("failed", "The tool exited with status 5; its log may tell why.")


def test_url_of_the_project_is_fetched(servers: list[ToolServer]) -> None:
    """The result is re-used by the content of the URL."""
    probe, _, _ = servers
    source = made(probe, text="by url")
    url = f"http://probe/artifacts/{source.name}/data/real"
    first = probe.container.create(f"u{next(_count)}", {"act": "write", "some-url": url})
    assert first.wait(timeout_s=30).phase == "completed", first.status().reason
    assert first.read("url.bin") == b"by url"
    assert first.input_files() == ["some-url"]
    again = probe.container.create(f"u{next(_count)}", {"act": "write", "some-url": url}, reuse=True)
    assert again.wait(timeout_s=30).reused_from == first.name
    assert again.read("url.bin") == b"by url"
    gone = probe.container.create(f"u{next(_count)}", {"act": "write", "some-url": f"{url}-not"})
    assert "404" in str(gone.wait(timeout_s=30).reason)


def test_row_copy_equals_its_row(servers: list[ToolServer]) -> None:
    """After each kind of end: a rebuild and the audit rely on the copies."""
    probe, _, _ = servers
    url = f"http://probe/artifacts/{made(probe, text='by url').name}/data/real"
    waits = {"act": "metrics", "seconds": 1, "text": f"only here {next(_count)}"}
    ways: list[tuple[dict[str, Any], bool]] = [
        (waits, True),
        (waits, True),
        ({"act": "write", "some-url": url, "text": f"only here {next(_count)}"}, True),
        ({"act": "raise", "text": "Because."}, False),
    ]
    artifacts = [probe.container.create(f"r{next(_count)}", each, reuse=reuse) for each, reuse in ways]
    artifacts.append(made(probe, text="published"))
    artifacts.append(probe.container.create(f"r{next(_count)}", waits, reuse=True))
    for artifact in artifacts:
        artifact.wait(timeout_s=60)
    assert [artifacts[number].status().reused_from for number in (1, -1)] == [artifacts[0].name, artifacts[1].name]
    assert artifacts[1].status().progress.done == 5
    index, volume = Index(probe.volume / "index.sqlite"), Volume(probe.volume)
    for artifact in artifacts:
        row = index.get(artifact.name)
        copy = read_row_copy(volume.folder(row.id))
        assert copy is not None and replace(copy, seq=row.seq) == row
    again = probe.container.create(f"r{next(_count)}", ways[2][0], reuse=True).wait(timeout_s=30)
    assert again.reused_from == artifacts[2].name


def test_pages_of_names_and_statuses_follow_each_other(probe: ToolServer) -> None:
    """The oldest come first."""
    names = probe.container.names()
    assert names[:3] + probe.container.names(after=names[2]) == names
    page = probe.container.statuses(limit=2, after=names[0])
    assert [status.name for status in page] == names[1:3]
    with pytest.raises(NotFoundError):
        probe.container.names(after="never-was")


def test_followed_log_of_a_deleted_artifact_breaks_off(probe: ToolServer) -> None:
    """The client must not take it for complete."""
    artifact = probe.container.create(f"log{next(_count)}", {"act": "sleep", "seconds": 60})
    until(lambda: b"begins" in b"".join(artifact.iter_log()))
    chunks = artifact.iter_log(follow=True)
    assert b"begins" in next(chunks)
    artifact.delete()
    with pytest.raises((NotFoundError, UnavailableError)):
        list(chunks)


def test_full_queue_gets_429_and_large_upload_413(tmp_path: Path) -> None:
    """A refused request leaves nothing."""
    with tool_server(
        "probe", tmp_path / "volume", BONSEYES_QUEUE_LIMIT="2", BONSEYES_UPLOAD_LIMIT_BYTES="100000"
    ) as server:
        server.container.create("running", {"act": "sleep", "seconds": 60})
        until(lambda: server.container.artifact("running").status().phase == "running")
        server.container.create("first", {"act": "write"})
        server.container.create("second", {"act": "write"})
        with pytest.raises(QueueFullError):
            server.container.create("third", {"act": "write"})
        (tmp_path / "large").write_bytes(os.urandom(200_000))
        with pytest.raises(TooLargeError):
            server.container.create("large", {"act": "write"}, files={"some-file": tmp_path / "large"})
        assert server.container.names() == ["running", "first", "second"]
        assert not [*server.volume.glob("drafts/*")]


def test_create_below_the_disk_reserve_is_refused(tmp_path: Path) -> None:
    """Existing artifacts can still be read."""
    with tool_server("probe", tmp_path / "volume", BONSEYES_DISK_RESERVE_BYTES=str(2**50)) as server:
        with pytest.raises(StorageFullError):
            server.container.create("any", {"act": "write"})
        assert server.container.names() == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of 16 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting is not allowed here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_full_disk_fails_only_the_artifact_that_fills_it(small_disk: Path, tmp_path: Path) -> None:
    """A large upload is refused, too. Both free their disk space."""
    with tool_server("probe", small_disk / "volume") as server:
        status = server.container.create("filling", {"act": "large", "seconds": 40}).wait(timeout_s=30)
        assert status.phase == "failed"
        assert "No space left" in str(status.reason)
        (tmp_path / "large").write_bytes(b"x" * 40_000_000)
        with pytest.raises(StorageFullError):
            server.container.create("uploaded", {"act": "write"}, files={"some-file": tmp_path / "large"})
        assert server.container.create("after", {"act": "large", "seconds": 4}).wait(timeout_s=30).phase == "completed"
        assert server.container.names() == ["filling", "after"]


def test_container_registers_with_the_dashboard(tmp_path: Path) -> None:
    """It registers at its start, as soon as the dashboard answers."""
    received: list[Any] = []

    class Dashboard(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append((self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    port = free_port()
    (tmp_path / "addresses.json").write_text(json.dumps({"dashboard": f"http://127.0.0.1:{port}"}))
    with (
        tool_server(
            "empty",
            tmp_path / "volume",
            BONSEYES_ADDRESSES=str(tmp_path / "addresses.json"),
            BONSEYES_CONTAINER="nothing",
        ),
        ThreadingHTTPServer(("127.0.0.1", port), Dashboard) as dashboard,
    ):
        thread = threading.Thread(target=lambda: dashboard.serve_forever(0.01))
        thread.start()
        until(lambda: received)
        dashboard.shutdown()
        thread.join()
    assert received == [("/containers", {"name": "nothing"})]


def write_tool(folder: Path, code: str) -> Path:
    """Write a tool with `code` as its one module, which has the tool's name; return its folder."""
    folder.mkdir()
    name = folder.name
    (folder / "tool.yml").write_text(f"{{name: {name}, description: d, entry_point: '{name}:create', output_type: x}}")
    (folder / f"{name}.py").write_text(code)
    return folder


def broken_health(server: ToolServer) -> str | None:
    """Return the health answer once it reports code that cannot be loaded; None while the server starts."""
    try:
        answer = requests.get(f"{server.url}/healthz", timeout=5)
    except requests.RequestException:
        return None
    assert answer.status_code == 503, answer.text
    return answer.text if "cannot be loaded" in answer.text else None


@pytest.mark.slow
def test_code_that_cannot_be_imported_is_reported_by_health(tmp_path: Path) -> None:
    """Artifacts fail with the reason. The container loads repaired code by itself."""
    tool = write_tool(tmp_path / "broken", "import time\ntime.sleep(2)\nimport a_module_that_is_not_there\n")
    server = ToolServer(tool, tmp_path / "volume")
    try:
        server.spawn()
        health = until(lambda: broken_health(server), 90)
        assert "No module named 'a_module_that_is_not_there'" in health
        status = server.container.create("any").wait(timeout_s=20)
        assert status.reason == "ModuleNotFoundError: No module named 'a_module_that_is_not_there'"
        assert f"{tool / 'broken.py'}:3: ModuleNotFoundError" in health
        (tool / "broken.py").write_text("def create(artifact):\n    artifact.path('made').touch()\n")
        until(server.container.is_healthy, 60)
        status = server.container.create("mended").wait(timeout_s=20)
        assert (status.phase, status.reason) == ("completed", None)
    finally:
        server.end()


def test_container_stays_up_if_the_import_of_the_code_crashes(tmp_path: Path) -> None:
    """After some tries the children import the code, and only the artifacts fail."""
    tool = write_tool(tmp_path / "crashing", "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    server = ToolServer(tool, tmp_path / "volume")
    try:
        server.spawn()
        until(lambda: "the children load it instead" in server.log.read_text(errors="replace"), 60)
        status = server.container.create("any").wait(timeout_s=60)
        assert (status.phase, status.reason) == ("failed", "The tool was ended by SIGSEGV; its log may tell where.")
        assert server.container.is_healthy()
    finally:
        server.end()


@pytest.mark.slow
def test_log_keeps_its_begin_and_its_end(tmp_path: Path) -> None:
    """The end tells why the tool failed."""
    tool = write_tool(
        tmp_path / "chatty",
        "import time\n"
        "def create(artifact):\n"
        "    for number in range(40):\n"
        "        print('first' if number == 0 else number, 'x' * 100_000, flush=True)\n"
        "        time.sleep(0.1)\n"
        "    raise ValueError('at the end')\n",
    )
    with tool_server(tool, tmp_path / "volume", BONSEYES_LOG_LIMIT_BYTES="200000") as server:
        artifact = server.container.create("any")
        [log] = until(lambda: list(server.volume.rglob("log")), 20)
        most_bytes = 0
        while not artifact.status().is_final:
            most_bytes = max(most_bytes, log.stat().st_size)
            time.sleep(0.02)
        text = b"".join(artifact.iter_log()).decode()
    assert 1_000_000 < most_bytes < 3_000_000, "one check per second"
    assert text.startswith("first x")
    _, _, notice = text[200_000:].lstrip().split(" ", 2)
    assert notice.startswith("WARNING bonseyes_dagster.tool: The log has passed 200000 bytes")
    assert text.rstrip().endswith("ValueError: at the end")
    assert len(text) < 200_000 + 2**16 + 1000
