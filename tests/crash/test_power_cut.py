"""The power goes: what was acknowledged, or seen as final, is on the disk, though memory is lost.

The disk is an ext4 in a file, mounted so that it writes out nothing for minutes but what is synced. While clients work,
the container is halted and the file copied: that is what a disk holds when the power is cut, all that lives in the page
cache is missing. A file that nobody synced is the control: its content must be missing in the copy.
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

pytestmark = pytest.mark.timeout(0)
TOOL = Path(__file__).parent / "tool"
_SHARED_MEMORY = Path("/dev/shm")
_CLIENTS = 3
# Somebody else's `sync`, which is for the whole machine, makes a cut worth nothing.
_MOST_TRIES = 4
Promise = tuple[dict[str, str], set[str], set[str]]
"""Final phases by name, names that are there, names that are gone."""


def promised(history: History) -> Promise:
    """Return what was promised up to now: final phases, names that are there, names that are gone."""
    there = {*undeleted_names(history)}
    final = {
        event.name: event.phase
        for event in history.events
        if event.name in there and event.phase is not None and event.phase in FINAL
    }
    return final, there, {*deleted_names(history)}


@contextlib.contextmanager
def halted(server: ToolServer) -> Iterator[None]:
    """Have all processes of a server stand still; those who asked it something wait."""
    family = [psutil.Process(server.master), *psutil.Process(server.master).children(recursive=True)]
    send(family, signal.SIGSTOP)
    try:
        # Answers that are on their way were sent before this.
        time.sleep(0.2)
        yield
    finally:
        send(family, signal.SIGCONT)


def send(family: list[psutil.Process], number: signal.Signals) -> None:
    """Send a signal to those that are still there."""
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def check_survived(disk: Disk, folder: Path, sworn: Promise) -> bool:
    """Start a container on what is left, and ask it for everything that was promised; tell if the control was lost."""
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


def test_power_cuts(tmp_path: Path) -> None:
    """After each cut: everything acknowledged is there, final is final, completed is whole, deleted is gone."""
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
                cut_again_and_again(disk, server, copy, tmp_path, seeded_)
            finally:
                server.end()
    finally:
        image.unlink(missing_ok=True)
        copy.unlink(missing_ok=True)


def cut_again_and_again(disk: Disk, server: ToolServer, copy: Path, tmp_path: Path, seeded_: random.Random) -> None:
    """Work all the time, and look at what a cut would leave at moments that nobody chose."""
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
            # Until all is checked, so that what is to be checked does not grow while it is.
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
