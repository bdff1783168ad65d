"""Measures rates and server memory of transfers: a large download, many files as a zip, a large upload, an input.

Only the transfer is measured. A download goes from the page cache to a client that discards the data. An upload goes
from a client to the disk, including the fsync. The server's memory must not grow with the size, so each transfer runs
with two sizes.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import psutil

from benchmarks.figure import Figure, compare
from benchmarks.service import nginx, peak_mib, scratch, tool_container
from benchmarks.timing import Timing, in_turn, timed
from bonseyes_dagster.client import Container
from bonseyes_dagster.settings import Settings
from bonseyes_dagster.tool.fetching.inputs import RemoteInput
from bonseyes_dagster.tool.fetching.outbound import Policy

GIB = 1 << 30
FLAT_MIB = 8.0
MANY, FEW = 10_000, 1_000
FILE_BYTES = 10_000


def _fetch(url: str) -> None:
    subprocess.run(["curl", "--silent", "--fail", "--output", "/dev/null", url], check=True)


def _make(container: Container, name: str, count: int, size: int) -> str:
    """Create an artifact of `count` files. Return the URL of its data."""
    artifact = container.create(name, {"count": count, "size": size})
    status = artifact.wait(timeout_s=600)
    assert status.phase == "completed", status.reason
    return f"{container.base_url}/artifacts/{name}/data"


def _growth(process: psutil.Process, small: Callable[[], object], large: Callable[[], object]) -> float:
    """Return the difference of the server's memory peaks, in MiB: the large transfer minus the small one.

    The first transfers only warm up the server's threads.
    """
    for _ in range(4):
        small()
    pairs = [(peak_mib(process, small), peak_mib(process, large)) for _ in range(5)]
    return statistics.median(large_mib - small_mib for small_mib, large_mib in pairs)


def _memory(figure: str, grown_mib: float) -> Figure:
    return compare(figure, grown_mib, None, "MiB", f"under {FLAT_MIB:g} MiB", grown_mib < FLAT_MIB)


def _rate(figure: str, timing: Timing, amount: float, unit: str, wanted: float) -> Figure:
    rates = amount / timing.ours, amount / timing.rival
    ok = timing.ratio >= wanted
    return compare(figure, *rates, unit, f"{wanted} of its rate", ok, ratio=timing.ratio, error=timing.error)


def _download(folder: Path) -> list[Figure]:
    figure = "download of 1 GiB (nginx)"
    volume = folder / "volume"
    with tool_container("files", volume) as (container, process):
        url = _make(container, "big", 1, GIB)
        grown_mib = _growth(process, partial(_fetch, _make(container, "small", 1, GIB // 8)), partial(_fetch, url))
        source = max(volume.rglob("000000.bin"), key=lambda path: path.stat().st_size)
        with nginx(source.parent) as base:
            if base is None:
                rate = 1 / statistics.median(timed(partial(_fetch, url)) for _ in range(5))
                rated = compare(figure, rate, None, "GiB/s", "0.8 of its rate", None)
            else:
                rival = partial(timed, partial(_fetch, f"{base}/{source.name}"))
                timing = in_turn(partial(timed, partial(_fetch, url)), rival)
                rated = _rate(figure, timing, 1, "GiB/s", 0.8)
    return [rated, _memory("download of 1 GiB, server memory beyond that of 128 MiB", grown_mib)]


def _zip(folder: Path) -> list[Figure]:
    volume = folder / "volume-zip"
    with tool_container("files", volume) as (container, process):
        few = _make(container, "few", FEW, FILE_BYTES)
        grown_mib = _growth(
            process, partial(_fetch, few), partial(_fetch, _make(container, "large", FEW, 20 * FILE_BYTES))
        )
        url = _make(container, "many", MANY, FILE_BYTES)
        root = next(path for path in volume.glob("artifacts/*/data") if (path / f"{(MANY - 1) // 1000:03d}").is_dir())

        def rival() -> None:
            with Path("/dev/null").open("wb") as nowhere:
                subprocess.run(["zip", "-0", "-q", "-r", "-", "."], cwd=root, stdout=nowhere, check=True)

        timing = in_turn(partial(timed, partial(_fetch, url)), partial(timed, rival))
        many_mib = _growth(process, partial(_fetch, few), partial(_fetch, url))
    return [
        _rate("10,000 files as zip (zip -0 -r)", timing, MANY * FILE_BYTES / 1e6, "MB/s", 0.8),
        _memory("1,000 files of 200 kB as zip, server memory beyond that of 10 kB", grown_mib),
        compare("10,000 files as zip, server memory beyond that of 1,000", many_mib, None, "MiB", "", None),
    ]


def _upload(folder: Path) -> list[Figure]:
    source, small, copy = folder / "upload.bin", folder / "small.bin", folder / "copy.bin"
    for path, count in ((source, 1024), (small, 128)):
        command = ["dd", "if=/dev/urandom", f"of={path}", "bs=1M", f"count={count}", "status=none"]
        subprocess.run(command, check=True)
    with tool_container("files", folder / "volume-up") as (container, process):

        def upload(path: Path) -> float:
            url = f"{container.base_url}/artifacts"
            form = ["-F", "name=up", "-F", f"upload=@{path}"]
            command = ["curl", "--silent", "--fail", "--output", "/dev/null", *form, url]
            seconds = timed(lambda: subprocess.run(command, check=True))
            container.artifact("up").wait(timeout_s=60)
            container.artifact("up").delete()
            return seconds

        def rival() -> float:
            command = ["dd", f"if={source}", f"of={copy}", "bs=1M", "conv=fsync", "status=none"]
            seconds = timed(lambda: subprocess.run(command, check=True))
            copy.unlink()
            return seconds

        grown_mib = _growth(process, partial(upload, small), partial(upload, source))
        timing = in_turn(partial(upload, source), rival, most_rounds=11)
    return [
        _rate("upload of 1 GiB (dd conv=fsync)", timing, 1, "GiB/s", 0.5),
        _memory("upload of 1 GiB, server memory beyond that of 128 MiB", grown_mib),
    ]


def _input(folder: Path) -> list[Figure]:
    """Read a file as the input of another artifact: as a link from the other volume, and over HTTP."""
    with tool_container("files", folder / "files") as (container, _):
        _make(container, "big", 1, GIB)
        addresses = folder / "addresses.json"
        addresses.write_text(json.dumps({"files": container.base_url}))
        policy = Policy.from_settings(Settings(addresses=addresses))
        digest = container.artifact("big").status().digest
        reference = {"container": "files", "name": "big", "url": "http://files/artifacts/big", "digest": digest}

        def take(volumes: Path | None) -> float:
            target = folder / "input"
            seconds = timed(lambda: RemoteInput(reference, target, policy, volumes).path("000/000000.bin"))
            shutil.rmtree(target)
            return seconds

        timing = in_turn(partial(take, folder), partial(take, None), rounds=5, most_rounds=9)
    figure = "input of 1 GiB, linked and verified (downloaded and verified)"
    return [compare(figure, timing.ours, timing.rival, "s", "", None)]


def measure() -> list[Figure]:
    """Measure download, zip, upload and input."""
    with scratch() as folder:
        return [*_download(folder), *_zip(folder), *_upload(folder), *_input(folder)]
