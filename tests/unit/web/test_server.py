"""The server as processes: it starts or refuses, its processes answer as one, and it leaves nothing behind."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import requests

from bonseyes_dagster.errors import SettingsError
from bonseyes_dagster.settings import Settings
from bonseyes_dagster.web.server import uwsgi_options
from tests.contract.serving import ROOT, Server, assert_gone, memory_argv, processes_of, serving, stop
from tests.other_user import as_other_user, needs_root

_MULE = """
import sys
from bonseyes_dagster.settings import Settings
from bonseyes_dagster.web.server import serve
serve("tests.contract.memory_app:from_environ()", sys.argv[1], settings=Settings.from_environ(),
      mule="tests.unit.web.mule:work")
"""


def mule_argv(bind: str) -> list[str]:
    """Return the command line of a server with a mule."""
    return [sys.executable, "-c", _MULE, bind]


def open_streams(server: Server, count: int) -> list[socket.socket]:
    """Open followed logs and long polls of a slow artifact."""
    name = server.create(steps=1000, pause=1.0)
    sockets = []
    for number in range(count):
        path = "log?follow" if number % 2 else "status?wait=60"
        connection = socket.create_connection(server.address, timeout=20)
        connection.sendall(f"GET /artifacts/{name}/{path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        sockets.append(connection)
    time.sleep(0.5)
    return sockets


@needs_root
def test_another_user_of_the_machine_gets_nothing(tmp_path: Path) -> None:
    """Any user can connect to a port, and `bonseyes tool run` has one."""

    def status(host: str) -> int:
        connection = http.client.HTTPConnection(*server.address, timeout=20)
        connection.request("GET", "/artifacts", headers={"Host": host})
        with contextlib.closing(connection):
            return connection.getresponse().status

    with serving(memory_argv, tmp_path) as server:
        assert status("localhost") == 200
        assert as_other_user(lambda: status("localhost")) == 403


def test_stops_soon_while_streams_are_open(tmp_path: Path) -> None:
    """Open followed logs and long polls must not delay SIGTERM."""
    with serving(memory_argv, tmp_path, {"BONSEYES_THREADS": "8"}) as server:
        streams = open_streams(server, 6)
        assert stop(server) < 5
        assert server.process.returncode == 0
        for stream in streams:
            stream.close()


def test_nothing_outlives_a_killed_master(tmp_path: Path) -> None:
    """After SIGKILL of the master, the workers and the mule end, too."""
    with serving(mule_argv, tmp_path, {"BONSEYES_PROCESSES": "2", "MULE_FILE": str(tmp_path / "mule")}) as server:
        family = processes_of(server)
        assert len(family) == 4
        server.process.send_signal(signal.SIGKILL)
        server.process.wait(10)
        assert_gone(family)


def test_mule_and_app_can_import_uwsgi(tmp_path: Path) -> None:
    """The mule has uWSGI's module and the same Python as the workers; on SIGTERM it can clean up."""
    file = tmp_path / "mule"
    with serving(mule_argv, tmp_path, {"MULE_FILE": str(file)}) as server:
        until = time.monotonic() + 10
        while not file.exists() and time.monotonic() < until:
            time.sleep(0.05)
        assert file.read_text() == f"1 {sys.executable}"
        stop(server)
    assert file.read_text() == "stopped"


def test_metrics_are_added_up_over_processes(tmp_path: Path) -> None:
    """Any process answers /metrics for all of them; their files are removed at the end."""
    with serving(memory_argv, tmp_path, {"BONSEYES_PROCESSES": "3", "TMPDIR": str(tmp_path)}) as server:
        pids = set()
        for _ in range(60):
            requests.get(f"{server.url}/artifacts/nobody", timeout=10)
        for _ in range(10):
            text = requests.get(f"{server.url}/metrics", timeout=10).text
            line = r'^bonseyes_http_requests_total\{method="GET",route="/artifacts/<name>",status="404"\} (\S+)$'
            assert re.findall(line, text, re.M) == ["60.0"]
        folder = next(tmp_path.glob("bonseyes-metrics-*"))
        pids = {re.sub(r"\D", "", path.name) for path in folder.glob("counter_*.db")}
        assert len(pids) > 1, "one process answered everything, so this test shows nothing"
    assert not folder.exists()


def test_slow_sender_holds_one_thread_only(tmp_path: Path) -> None:
    """Other clients do not wait for it."""
    with serving(memory_argv, tmp_path, {"BONSEYES_THREADS": "4"}) as server:
        slow = [socket.create_connection(server.address, timeout=10) for _ in range(3)]
        for connection in slow:
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHo")
        time.sleep(0.2)
        assert requests.get(f"{server.url}/healthz", timeout=5).status_code == 200
        for connection in slow:
            connection.sendall(b"st: x\r\n\r\n")
            assert connection.recv(100).startswith(b"HTTP/1.1 200 ")
            connection.close()


def send_upload(server: Server, name: str, size_bytes: int) -> int:
    """Upload `size` zero bytes with a Content-Length; return the status."""
    head = f'--b\r\nContent-Disposition: form-data; name="name"\r\n\r\n{name}\r\n--b\r\n'
    head += 'Content-Disposition: form-data; name="data"\r\n\r\n{"files": []}\r\n--b\r\n'
    head += 'Content-Disposition: form-data; name="upload"; filename="x"\r\n\r\n'
    tail = "\r\n--b--\r\n"
    with contextlib.closing(http.client.HTTPConnection(*server.address, timeout=60)) as connection:
        connection.putrequest("POST", "/artifacts")
        connection.putheader("Content-Type", "multipart/form-data; boundary=b")
        connection.putheader("Content-Length", str(len(head) + size_bytes + len(tail)))
        connection.endheaders(head.encode())
        for _ in range(size_bytes >> 20):
            connection.send(bytes(1 << 20))
        connection.send(tail.encode())
        return connection.getresponse().status


def test_large_upload_keeps_memory_flat(tmp_path: Path) -> None:
    """An upload of 256 MiB costs the worker a few MiB, and so do downloads, whole or by range."""
    size = 256 << 20
    with serving(memory_argv, tmp_path) as server:
        worker = psutil.Process(server.process.pid).children()[0]
        server.made()
        before = worker.memory_info().rss
        name = server.new_name()
        assert send_upload(server, name, size) == 200
        assert server.wait(name)["size"] == size
        for headers in ({}, {"Range": "bytes=1-"}):
            with server.get(f"{name}/data", headers=headers, stream=True) as download:
                assert sum(len(piece) for piece in download.iter_content(1 << 20)) >= size - 1
        assert worker.memory_info().rss - before < 24 << 20


def test_the_server_refuses_to_start_without_an_app(tmp_path: Path) -> None:
    """With an exit code and a reason."""
    options = uwsgi_options("tests.contract.memory_app:nothing()", "127.0.0.1:0", settings=Settings())
    argv = [sys.executable, "-c", "import pyuwsgi; pyuwsgi.run()", *options]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(argv, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=30, check=False)
    assert result.returncode != 0
    assert "unable to load app" in result.stdout


def test_options_in_the_environment_change_nothing(tmp_path: Path) -> None:
    """UWSGI reads UWSGI_* as options, for example a configuration file or a further port."""
    with serving(memory_argv, tmp_path, {"UWSGI_INI": "/nowhere", "http_proxy": "http://127.0.0.1:1"}) as server:
        assert requests.get(f"{server.url}/healthz", timeout=10).ok


@pytest.mark.parametrize("bind", ["8080", "127.0.0.1", "127.0.0.1:http", ":8080", ""])
def test_an_invalid_bind_is_refused(bind: str) -> None:
    """Before anything starts."""
    with pytest.raises(SettingsError, match="HOST:PORT"):
        uwsgi_options("app:app", bind, settings=Settings())


def test_folders_of_killed_servers_are_removed(tmp_path: Path) -> None:
    """A killed server cannot remove its metrics. The next server does, but keeps those of running servers."""
    temporary = tmp_path / "tmp"
    ended = subprocess.Popen(["true"])
    ended.wait()
    for pid in (ended.pid, os.getpid()):
        (temporary / f"bonseyes-metrics-{pid}-x").mkdir(parents=True)
    with serving(memory_argv, tmp_path, {"TMPDIR": str(temporary)}) as server:
        names = {path.name.rsplit("-", 1)[0] for path in temporary.iterdir()}
        assert names == {f"bonseyes-metrics-{pid}" for pid in (os.getpid(), server.process.pid)}


def test_a_client_may_leave_a_download(tmp_path: Path) -> None:
    """Disconnecting in the middle of a range or an archive frees the thread and writes no traceback."""
    with serving(memory_argv, tmp_path, {"BONSEYES_THREADS": "2"}) as server:
        name = server.made(files=["a", "b"], repeat=10_000_000)
        for path, header in (("data", ""), ("data/a", "Range: bytes=1-\r\n"), ("data/a", "")) * 2:
            with socket.create_connection(server.address, timeout=10) as connection:
                request = f"GET /artifacts/{name}/{path} HTTP/1.1\r\nHost: x\r\n{header}\r\n"
                connection.sendall(request.encode())
                assert connection.recv(100).startswith(b"HTTP/1.1 20")
        assert server.get("/healthz").status_code == 200
        assert "Traceback" not in server.log.read_text()
        assert "rror" not in server.log.read_text()
