"""Unix sockets: their URLs, and which process may listen at one."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from bonseyes_dagster.errors import SettingsError
from bonseyes_dagster.system import sockets


def _listen(path: Path, backlog: int = 8) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(backlog)
    return listener


def _claim_elsewhere(path: Path) -> subprocess.CompletedProcess[str]:
    code = (
        "import sys; from pathlib import Path; from bonseyes_dagster import errors\n"
        "from bonseyes_dagster.system import sockets\n"
        "try: sockets.claim(Path(sys.argv[1]))\n"
        "except errors.SettingsError as error: sys.exit(error.message)"
    )
    return subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=60, check=False
    )


def test_a_url_names_its_socket(tmp_path: Path) -> None:
    """Messages show the URL without the folder, which is private."""
    path = tmp_path / "A b%" / "learn.sock"
    url = sockets.url_of(path)
    assert sockets.path_of(f"{url}/artifacts/a?x=1") == str(path)
    assert sockets.plain_url(f"{url}/artifacts/a?x=1") == "http://learn/artifacts/a?x=1"
    assert sockets.path_of("http://learn/artifacts/a") is None
    assert sockets.plain_url("http://learn:80/artifacts/a") == "http://learn:80/artifacts/a"


def test_the_socket_of_a_dead_process_is_replaced(tmp_path: Path) -> None:
    """A killed server leaves the file."""
    path = tmp_path / "a.sock"
    _listen(path).close()
    assert path.exists()
    sockets.claim(path)
    assert not path.exists()
    _listen(path).close()


def test_a_socket_in_use_is_never_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither while its server listens, nor between its claim and its bind."""
    monkeypatch.setattr(sockets, "_ORPHANS_S", 0.1)
    live, claimed = tmp_path / "live.sock", tmp_path / "claimed.sock"
    with _listen(live):
        with pytest.raises(SettingsError, match=r"Another process listens at .*live\.sock"):
            sockets.claim(live)
        sockets.connect(str(live), 1).close()
    sockets.claim(claimed)
    done = _claim_elsewhere(claimed)
    assert done.stderr.startswith("Another process listens at")


def test_an_invalid_socket_path_is_refused(tmp_path: Path) -> None:
    """A file is not removed, and a long path is not cut."""
    file = tmp_path / "file"
    file.touch()
    for path, message in (
        (file, "not a socket"),
        (tmp_path / ("x" * 107), "107 bytes"),
        (Path("relative.sock"), "absolute"),
        (tmp_path / "none" / "a.sock", "No such file"),
    ):
        with pytest.raises(SettingsError, match=message):
            sockets.claim(path)
    assert file.exists()


def test_connecting_waits_for_a_full_backlog(tmp_path: Path) -> None:
    """With Python's own timeout, the kernel refuses at once, and a burst of requests would fail."""
    path = tmp_path / "a.sock"
    with _listen(path, backlog=0) as listener:
        waiting = [sockets.connect(str(path), 1)]
        with pytest.raises(TimeoutError):
            sockets.connect(str(path), 0.05)
        accepting = threading.Timer(0.1, lambda: waiting.append(listener.accept()[0]))
        accepting.start()
        begun_s = time.monotonic()
        patient = sockets.connect(str(path), 5)
        assert time.monotonic() - begun_s < 4
        assert patient.gettimeout() == 5
        accepting.join()
        patient.close()
        for connection in waiting:
            connection.close()


def test_closed_and_missing_sockets_have_different_errors(tmp_path: Path) -> None:
    """Both are an OSError with the kernel's reason."""
    _listen(tmp_path / "a.sock").close()
    with pytest.raises(ConnectionRefusedError):
        sockets.connect(str(tmp_path / "a.sock"), 1)
    with pytest.raises(FileNotFoundError):
        sockets.connect(str(tmp_path / "b.sock"), None)
