"""The power goes: acknowledged artifacts and final phases are on the disk, although memory is lost.

The disk is an ext4 file system in a file. Its mount writes only synced data for minutes. While clients work, the test
halts the container and copies the file. The copy is the disk after a power cut: the content of the page cache is
missing. A file without a sync is the control: its content must be missing in the copy.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import requests

from tests.contract.tools.server import ToolServer
from tests.crash.clients import Client, ClientGroup
from tests.crash.disks import Disk
from tests.crash.final_checks import fault_of, leftover_files, wait_until_all_final
from tests.crash.history import History
from tests.crash.model import FINAL, deleted_names, undeleted_names
from tests.crash.scale import POWER_CUTS, STUCK_S, seeded
from tests.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(0)]
TOOL = Path(__file__).parent / "tool"
_SHARED_MEMORY = Path("/dev/shm")
_CLIENTS = 3
# A `sync` of another program writes all disks of the machine, and makes a cut useless.
_MOST_TRIES = 4
Promise = tuple[dict[str, str], set[str], set[str]]
"""Final phases by name, names that must exist, names that must not exist."""


def promised(history: History) -> Promise:
    """Return the promises so far: final phases, names that must exist, names that must not."""
    there = {*undeleted_names(history)}
    final = {
        event.name: event.phase
        for event in history.events
        if event.name in there and event.phase is not None and event.phase in FINAL
    }
    return final, there, {*deleted_names(history)}


@contextlib.contextmanager
def halted(server: ToolServer) -> Iterator[None]:
    """Stop all processes of a server while the block runs; clients wait for their answers."""
    family = [psutil.Process(server.master), *psutil.Process(server.master).children(recursive=True)]
    send(family, signal.SIGSTOP)
    try:
        # Wait for answers that were sent before the halt.
        time.sleep(0.2)
        yield
    finally:
        send(family, signal.SIGCONT)


def send(family: list[psutil.Process], number: signal.Signals) -> None:
    """Send a signal to the processes that still run."""
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def check_survived(disk: Disk, folder: Path, sworn: Promise) -> bool:
    """Start a container on the copied disk, and check all promises; tell whether the control was lost."""
    final, there, deleted = sworn
    with disk.mounted(folder) as mounted:
        control = mounted / "control"
        is_lost = not control.exists() or not control.read_bytes()
        server = ToolServer(TOOL, mounted / "volume")
        server.log = folder.with_suffix(".log")
        try:
            server.start()
            wait_until_all_final(server, STUCK_S)
            body = requests.get(f"{server.url}/artifacts?detail=1", timeout=30).json()
            phases = {status["name"]: status["phase"] for status in body}
            assert not there - phases.keys(), f"lost: {there - phases.keys()}"
            assert not deleted & phases.keys(), f"back from deletion: {deleted & phases.keys()}"
            changed = {name: (phase, phases[name]) for name, phase in final.items() if phases[name] != phase}
            assert not changed, f"final and changed: {changed}"
            wrong = [sentence for name in phases if (sentence := fault_of(server, name))]
            assert not wrong, wrong
            until(lambda: not leftover_files(server.volume))
            return is_lost
        finally:
            server.end()


def test_acknowledged_artifacts_survive_power_cuts(tmp_path: Path) -> None:
    """After each cut: final phases are unchanged, completed artifacts have all files, and deleted ones stay deleted."""
    if not os.access(_SHARED_MEMORY, os.W_OK):
        pytest.skip("there is no memory file system for the disk's file")
    seeded_ = seeded()
    image = _SHARED_MEMORY / f"bonseyes-{os.getpid()}.ext4"
    copy = image.with_suffix(".copy")
    try:
        disk = Disk(image).format()
        with disk.mounted(tmp_path / "disk") as mounted:
            server = ToolServer(TOOL, mounted / "volume")
            server.log = tmp_path / "server.log"
            try:
                server.start()
                cut_at_random_moments(disk, server, copy, tmp_path, seeded_)
            finally:
                server.end()
    finally:
        image.unlink(missing_ok=True)
        copy.unlink(missing_ok=True)


def cut_at_random_moments(disk: Disk, server: ToolServer, copy: Path, tmp_path: Path, seeded_: random.Random) -> None:
    """Let clients work all the time, and check the disk after cuts at random moments."""
    ledger = tmp_path / "ledger"
    group = ClientGroup(server, History(), ledger, goal=10**6)
    clients: list[threading.Thread] = [Client(group, seeded_.randrange(2**31)) for _ in range(_CLIENTS)]
    for client in clients:
        client.start()
    counts = []
    try:
        for number in range(_MOST_TRIES * POWER_CUTS):
            until(lambda count=20 * (number + 1): group.created >= count, 120)  # type: ignore[misc]
            time.sleep(seeded_.uniform(0, 0.3))
            (server.volume.parent / "control").unlink(missing_ok=True)
            (server.volume.parent / "control").write_bytes(b"not synced")
            # Halt the container until all checks end, so that no new promises come meanwhile.
            with halted(server):
                sworn = promised(group.history.snapshot())
                if check_survived(disk.after_power_cut(copy), tmp_path / f"cut{number}", sworn):
                    counts.append(tuple(len(part) for part in sworn))
            if len(counts) == POWER_CUTS:
                break
    finally:
        group.stop.set()
        for client in clients:
            client.join(120)
    assert not group.errors, group.errors
    assert len(counts) == POWER_CUTS, "something here keeps writing out all that is in memory, so nothing could be lost"
    print(f"{len(counts)} power cuts in {number + 1} tries; final, there and gone at each: {counts}")
