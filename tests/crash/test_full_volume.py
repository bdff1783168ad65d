"""A volume of 64 MB fills up: the container reports it, loses nothing, and deletions make room."""

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
from tests.crash.final_checks import leftover_files
from tests.crash.operations import ContainerUnderTest
from tests.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
TOOL = Path(__file__).parent / "tool"
_RESERVE_BYTES = 4_000_000


def free_bytes(path: Path) -> int:
    """Return how many bytes a file can still take."""
    stat = os.statvfs(path)
    return stat.f_bavail * stat.f_frsize


def fill(path: Path, leave_bytes: int) -> None:
    """Use all disk space except `leave_bytes`, as another program on the same disk would."""
    with path.open("wb") as file:
        while (size := min(1 << 20, free_bytes(path) - leave_bytes)) > 0:
            file.write(b"x" * size)
            file.flush()
            os.fsync(file.fileno())


@pytest.mark.parametrize("disk", [tmpfs, mounted_image], ids=["tmpfs", "ext4"])
def test_full_volume_refuses_creations_and_goes_on(
    tmp_path: Path, disk: Callable[[Path], AbstractContextManager[Path]]
) -> None:
    """A creation gets 507, the running artifact fails with the reason, reads go on, and deletions make room."""
    with disk(tmp_path / "disk") as mounted:
        server = ToolServer(TOOL, mounted / "volume", BONSEYES_DISK_RESERVE_BYTES=str(_RESERVE_BYTES))
        server.log = tmp_path / "server.log"
        try:
            server.start()
            tested = ContainerUnderTest(server, tmp_path / "ledger")
            tested.ensure_completed("small")
            tested.ensure_completed("big", files=10, size=2_000_000)
            fail_for_want_of_room(tested)
            refuse(tested)
            fill_to_the_last_byte(tested, mounted)
            crash_while_full(tested, mounted)
            tested.check_acknowledged()
            until(lambda: not leftover_files(server.volume))
        finally:
            server.end()


def fail_for_want_of_room(tested: ContainerUnderTest) -> None:
    """An artifact that is too large fails with the reason, and its disk space is freed."""
    before = free_bytes(tested.server.volume)
    tested.ensure_created("too-big", files=10, size=8_000_000)
    assert tested.wait_until_final("too-big") == "failed"
    assert "No space left on device" in tested.reason("too-big")
    until(lambda: free_bytes(tested.server.volume) > before - 1_000_000)


def refuse(tested: ContainerUnderTest) -> None:
    """An upload that would use up the reserve is refused while it comes."""
    parts = {
        "name": (None, "upload"),
        "data": (None, '{"text": "t", "ledger": "/dev/null"}'),
        "upload": ("upload", b"x" * 60_000_000),
    }
    answer = requests.post(tested.url, files=parts, timeout=60)
    assert (answer.status_code, answer.json()["error"]["code"]) == (507, "storage_full")
    until(lambda: not [*tested.server.volume.glob("drafts/*")])


def fill_to_the_last_byte(tested: ContainerUnderTest, mounted: Path) -> None:
    """On a completely full disk, deletions still work, and make room for new artifacts."""
    tested.ensure_running("running")
    tested.ensure_created("queued")
    fill(mounted / "filler", 0)
    answer = tested.create("refused")
    assert answer is not None
    assert (answer.status_code, answer.json()["error"]["code"]) == (507, "storage_full")
    answer = requests.post(f"{tested.url}/running/cancel", timeout=60)
    assert answer.status_code == 200, answer.text
    assert tested.wait_until_final("running") == "cancelled"
    # On such a full disk the next artifact may fail or succeed.
    assert tested.wait_until_final("queued") in ("failed", "completed")
    tested.check_acknowledged()
    answer = requests.delete(f"{tested.url}/big", timeout=60)
    assert answer.status_code == 200, answer.text
    del tested.final_phases["big"]
    tested.ensure_completed("after", files=2, size=1_000_000)
    (mounted / "filler").unlink()


def crash_while_full(tested: ContainerUnderTest, mounted: Path) -> None:
    """Without a free byte or inode, a killed container starts again, and deletions make room."""
    tested.ensure_completed("large", files=10, size=1_000_000)
    tested.ensure_running("cut-short")
    tested.ensure_created("waiting")
    start_again_full(tested, mounted / "first")
    assert tested.wait_until_final("cut-short") == "interrupted"
    assert tested.wait_until_final("waiting") in ("failed", "completed")
    # Now there are no leftovers whose removal would make room.
    start_again_full(tested, mounted / "second")
    tested.check_acknowledged()
    tested.ensure_deleted("large")
    tested.ensure_completed("later")
    for fillers in ("first", "second"):
        shutil.rmtree(mounted / fillers)


def start_again_full(tested: ContainerUnderTest, fillers: Path) -> None:
    """Kill the server, use up the disk, and start the server again."""
    fillers.mkdir()
    tested.server.kill()
    fill(fillers / "filler", 0)
    use_up_inodes(fillers)
    tested.server.start()


def use_up_inodes(folder: Path) -> None:
    """Use up all inodes, unless the disk has very many."""
    count = os.statvfs(folder).f_favail
    with suppress(OSError):
        for number in range(count if count < 100_000 else 0):
            (folder / str(number)).touch()
