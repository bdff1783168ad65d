"""A volume of 64 MB that fills up: said so, nothing lost, and room is made by deleting."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import pytest
import requests

from tests.contract.tools.server import ToolServer
from tests.crash.disks import mounted_image, tmpfs
from tests.crash.operations import Bench
from tests.crash.verdict import leftovers
from tests.waiting import until

pytestmark = pytest.mark.timeout(300)
TOOL = Path(__file__).parent / "tool"
_RESERVE_BYTES = 4_000_000


def free_bytes(path: Path) -> int:
    """Return how much a file can still take."""
    stat = os.statvfs(path)
    return stat.f_bavail * stat.f_frsize


def fill(path: Path, leave_bytes: int) -> None:
    """Take all room but so much, as somebody else on the same disk would."""
    with path.open("wb") as file:
        while (size := min(1 << 20, free_bytes(path) - leave_bytes)) > 0:
            file.write(b"x" * size)
            file.flush()
            os.fsync(file.fileno())


@pytest.mark.parametrize("disk", [tmpfs, mounted_image], ids=["tmpfs", "ext4"])
def test_a_volume_fills_up(tmp_path: Path, disk: Callable[[Path], AbstractContextManager[Path]]) -> None:
    """Creating is 507, what runs fails with the reason, reading goes on, deleting makes room, and it goes on."""
    with disk(tmp_path / "disk") as mounted:
        server = ToolServer(TOOL, mounted / "volume", BONSEYES_DISK_RESERVE_BYTES=str(_RESERVE_BYTES))
        server.log = tmp_path / "server.log"
        try:
            server.start()
            bench = Bench(server, tmp_path / "ledger")
            bench.completed("small")
            bench.completed("big", files=10, size=2_000_000)
            fail_for_want_of_room(bench)
            refuse(bench)
            fill_to_the_last_byte(bench, mounted)
            crash_while_full(bench, mounted)
            bench.check_kept()
            until(lambda: not leftovers(server.volume))
        finally:
            server.end()


def fail_for_want_of_room(bench: Bench) -> None:
    """What needs more than there is fails and says so; what it wrote is given back."""
    before = free_bytes(bench.server.volume)
    bench.created("too-big", files=10, size=8_000_000)
    assert bench.final("too-big") == "failed"
    assert "No space left on device" in bench.reason("too-big")
    until(lambda: free_bytes(bench.server.volume) > before - 1_000_000)


def refuse(bench: Bench) -> None:
    """Below the reserve nothing new is taken; an upload that would go below it is refused while it comes."""
    parts = {
        "name": (None, "upload"),
        "data": (None, '{"text": "t", "ledger": "/dev/null"}'),
        "upload": ("upload", b"x" * 60_000_000),
    }
    answer = requests.post(bench.url, files=parts, timeout=60)
    assert (answer.status_code, answer.json()["error"]["code"]) == (507, "storage_full")
    until(lambda: not [*bench.server.volume.glob("drafts/*")])


def fill_to_the_last_byte(bench: Bench, mounted: Path) -> None:
    """With nothing free at all, deleting still works, and what it frees is used."""
    bench.running("running")
    bench.created("queued")
    fill(mounted / "filler", 0)
    answer = bench.create("refused")
    assert answer is not None
    assert (answer.status_code, answer.json()["error"]["code"]) == (507, "storage_full")
    answer = requests.post(f"{bench.url}/running/cancel", timeout=60)
    assert answer.status_code == 200, answer.text
    assert bench.final("running") == "cancelled"
    # On a disk this full the next one cannot be made, or just so.
    assert bench.final("queued") in ("failed", "completed")
    bench.check_kept()
    answer = requests.delete(f"{bench.url}/big", timeout=60)
    assert answer.status_code == 200, answer.text
    del bench.settled["big"]
    bench.completed("after", files=2, size=1_000_000)
    (mounted / "filler").unlink()


def crash_while_full(bench: Bench, mounted: Path) -> None:
    """With nothing free at all, no inode either, a container that was killed comes back, and deleting makes room."""
    bench.completed("large", files=10, size=1_000_000)
    bench.running("cut-short")
    bench.created("waiting")
    start_again_full(bench, mounted / "first")
    assert bench.final("cut-short") == "interrupted"
    assert bench.final("waiting") in ("failed", "completed")
    # Now there is nothing left that makes room by being cleared away.
    start_again_full(bench, mounted / "second")
    bench.check_kept()
    bench.deleted("large")
    bench.completed("later")
    for fillers in ("first", "second"):
        shutil.rmtree(mounted / fillers)


def start_again_full(bench: Bench, fillers: Path) -> None:
    """Kill the server, take all room, and have it be healthy again."""
    fillers.mkdir()
    bench.server.kill()
    fill(fillers / "filler", 0)
    use_up_inodes(fillers)
    bench.server.start()


def use_up_inodes(folder: Path) -> None:
    """Leave no file to be made, where that does not take a million."""
    count = os.statvfs(folder).f_favail
    with suppress(OSError):
        for number in range(count if count < 100_000 else 0):
            (folder / str(number)).touch()
