"""The data path: a large download, a folder of many files as zip, a large upload; rates and server memory."""

from __future__ import annotations

import shutil
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from benchmarks.figure import Figure, compare
from benchmarks.service import free_port, memory_bytes, scratch, tool_container

GIB = 1 << 30
REPEATS = 3


@contextmanager
def _nginx(root: Path) -> Iterator[str | None]:
    """Serve `root` with nginx and yield its base URL; None where there is no nginx."""
    program = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/bin")
    if program is None:
        yield None
        return
    port = free_port()
    # Its workers drop root: a folder that they may read, and the data by a link-free absolute path.
    with tempfile.TemporaryDirectory() as prefix:
        conf = Path(prefix) / "nginx.conf"
        conf.write_text(
            f"daemon off; user root; worker_processes 1; pid {prefix}/pid; error_log stderr warn; events {{}}\n"
            f"http {{ sendfile on; access_log off; client_body_temp_path {prefix}/body; proxy_temp_path {prefix}/proxy;"
            f" fastcgi_temp_path {prefix}/f; uwsgi_temp_path {prefix}/u; scgi_temp_path {prefix}/s;\n"
            f" server {{ listen 127.0.0.1:{port}; root {root}; }} }}\n"
        )
        server = subprocess.Popen([program, "-p", prefix, "-c", conf])
        try:
            time.sleep(0.5)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait(10)


def _fetch(url: str) -> float:
    """Return the seconds of one download to nowhere."""
    start = time.perf_counter()
    subprocess.run(["curl", "--silent", "--fail", "--output", "/dev/null", url], check=True)
    return time.perf_counter() - start


def _peak_growth(process: psutil.Process, action: Callable[[], float]) -> tuple[float, float]:
    """Return the action's seconds and by how many MiB the server's memory grew at most meanwhile."""
    before = memory_bytes(process)
    peak = before
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.1):
            peak = max(peak, memory_bytes(process))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        seconds = action()
    finally:
        done.set()
        watcher.join()
    return seconds, (peak - before) / 2**20


def _in_turn(ours: Callable[[], float], rival: Callable[[], float]) -> tuple[float, float]:
    """Return the median seconds of both, measured in turn after a warm-up."""
    ours(), rival()
    pairs = [(ours(), rival()) for _ in range(REPEATS)]
    return statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs)


def _download(folder: Path) -> list[Figure]:
    volume = folder / "volume"
    with tool_container("files", volume) as (container, process):
        artifact = container.create("big", {"count": 1, "size": GIB})
        assert artifact.wait(timeout_s=120).phase == "completed"
        url = f"{container.base_url}/artifacts/big/data/000/000000.bin"
        source = next(volume.rglob("000000.bin"))
        _, grown_mib = _peak_growth(process, lambda: _fetch(url))
        with _nginx(source.parent) as nginx:
            if nginx is None:
                seconds = statistics.median(_fetch(url) for _ in range(REPEATS))
                rates = (1 / seconds, None)
            else:
                ours_s, rival_s = _in_turn(lambda: _fetch(url), lambda: _fetch(f"{nginx}/{source.name}"))
                rates = (1 / ours_s, 1 / rival_s)
    ok = None if rates[1] is None else rates[0] >= 0.8 * rates[1]
    return [
        compare("download of 1 GiB (nginx)", rates[0], rates[1], "GiB/s", "0.8 of its rate", ok),
        compare("download of 1 GiB, server memory grows", grown_mib, None, "MiB", "under 16 MiB", grown_mib < 16),
    ]


def _zip(folder: Path) -> list[Figure]:
    volume = folder / "volume-zip"
    with tool_container("files", volume) as (container, process):
        artifact = container.create("many", {"count": 10_000, "size": 10_000})
        assert artifact.wait(timeout_s=300).phase == "completed"
        root = next(volume.rglob("000000.bin")).parent.parent
        url = f"{container.base_url}/artifacts/many/data"

        def rival() -> float:
            start = time.perf_counter()
            with Path("/dev/null").open("wb") as nowhere:
                subprocess.run(["zip", "-0", "-q", "-r", "-", "."], cwd=root, stdout=nowhere, check=True)
            return time.perf_counter() - start

        _, grown_mib = _peak_growth(process, lambda: _fetch(url))
        ours_s, rival_s = _in_turn(lambda: _fetch(url), rival)
    rates = (100 / ours_s, 100 / rival_s)
    return [
        compare("10,000 files as zip (zip -0 -r)", *rates, "MB/s", "0.8 of its rate", rates[0] >= 0.8 * rates[1]),
        compare("10,000 files as zip, server memory grows", grown_mib, None, "MiB", "under 16 MiB", grown_mib < 16),
    ]


def _upload(folder: Path) -> list[Figure]:
    source = folder / "upload.bin"
    subprocess.run(["dd", "if=/dev/urandom", f"of={source}", "bs=1M", "count=1024", "status=none"], check=True)
    copy = folder / "copy.bin"
    with tool_container("files", folder / "volume-up") as (container, process):
        count = iter(range(100))

        def ours() -> float:
            start = time.perf_counter()
            command = ["curl", "--silent", "--fail", "--output", "/dev/null", "-F", f"name=u{next(count)}"]
            subprocess.run([*command, "-F", f"upload=@{source}", f"{container.base_url}/artifacts"], check=True)
            return time.perf_counter() - start

        def rival() -> float:
            start = time.perf_counter()
            subprocess.run(["dd", f"if={source}", f"of={copy}", "bs=1M", "conv=fsync", "status=none"], check=True)
            seconds = time.perf_counter() - start
            copy.unlink()
            return seconds

        _, grown_mib = _peak_growth(process, ours)
        ours_s, rival_s = _in_turn(ours, rival)
    rates = (1 / ours_s, 1 / rival_s)
    return [
        compare("upload of 1 GiB (dd conv=fsync)", *rates, "GiB/s", "0.5 of its rate", rates[0] >= 0.5 * rates[1]),
        compare("upload of 1 GiB, server memory grows", grown_mib, None, "MiB", "under 16 MiB", grown_mib < 16),
    ]


def measure() -> list[Figure]:
    """Download, zip, upload."""
    with scratch() as folder:
        return [*_download(folder), *_zip(folder), *_upload(folder)]
