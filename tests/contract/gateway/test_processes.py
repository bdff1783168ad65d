"""How a gateway starts, learns of new addresses, and ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.contract.gateway.processes import EMBEDDED, running
from tests.contract.gateway.upstream import Upstream

MIB = 2**20


def test_addresses_are_read_again(tmp_path: Path, upstream: Upstream) -> None:
    """The embedded gateway finds a new container without a restart; nginx needs a new image."""
    with running(EMBEDDED, tmp_path, upstream) as gateway:
        addresses = tmp_path / "addresses.json"
        before = addresses.read_text()
        addresses.write_text(json.dumps({**json.loads(before), "later": f"http://127.0.0.1:{upstream.port}"}))
        assert gateway.get("/containers/later/x").status_code == 200
        addresses.write_text(before)
        assert gateway.get("/containers/later/x").status_code == 404


@pytest.mark.parametrize("how", ["SIGTERM", "SIGINT"])
def test_a_signal_ends_it_soon_despite_open_streams(kind: str, tmp_path: Path, upstream: Upstream, how: str) -> None:
    """Long polls and followed logs do not delay it."""
    with (
        running(kind, tmp_path, upstream) as gateway,
        gateway.connect() as connection,
    ):
        connection.sendall(gateway.head("GET", "/containers/tool/wait?s=60"))
        assert upstream.began.wait(10)
        begun_s = time.monotonic()
        gateway.process.send_signal(signal.Signals[how])
        assert gateway.process.wait(15) == 0
        assert time.monotonic() - begun_s < 8


@pytest.mark.parametrize(
    ("arguments", "environ", "why"),
    [
        (["--bind", "0.0.0.0:8000"], {}, "BONSEYES_TOKEN"),
        (["--bind", "nonsense"], {}, "HOST:PORT"),
        (["--bind", "127.0.0.1:1"], {"BONSEYES_ADDRESSES": ""}, "BONSEYES_ADDRESSES"),
    ],
)
def test_it_refuses_to_start_with_wrong_settings(arguments: list[str], environ: dict[str, str], why: str) -> None:
    """With one sentence and a status, before it listens."""
    environ = {**os.environ, "BONSEYES_ADDRESSES": "/tmp/addresses.json", "BONSEYES_TOKEN": "", **environ}
    argv = [sys.executable, "-m", "bonseyes_dagster.gateway", *arguments]
    done = subprocess.run(argv, env=environ, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 1
    assert why in done.stderr
    assert "Traceback" not in done.stderr
