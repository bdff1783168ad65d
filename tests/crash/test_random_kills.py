"""Clients create, read, cancel and delete while every kind of process is killed; a model checks their answers."""

from __future__ import annotations

import random
import time
from collections import Counter
from pathlib import Path

import pytest
import requests

from tests.contract.tools.server import ToolServer
from tests.crash.clients import Client, ClientGroup
from tests.crash.final_checks import (
    fault_of,
    leftover_files,
    overlaps,
    remaining_processes,
    starts_of,
    wait_until_all_final,
)
from tests.crash.history import History
from tests.crash.killer import Killer
from tests.crash.model import undeleted_names, violations, wrong_order
from tests.crash.scale import CREATIONS, KILLS, STUCK_S, seeded
from tests.waiting import until

pytestmark = pytest.mark.slow

TOOL = Path(__file__).parent / "tool"
_CLIENTS = 4


def campaign(server: ToolServer, ledger: Path, seeded_: random.Random) -> tuple[ClientGroup, Counter[str]]:
    """Let the clients create all artifacts while the killer kills processes."""
    group = ClientGroup(server, History(), ledger, CREATIONS)
    clients = [Client(group, seeded_.randrange(2**31)) for _ in range(_CLIENTS)]
    killer = Killer(server, group, seeded_)
    for client in clients:
        client.start()
    try:
        killer.kill(KILLS, lambda: not any(client.is_alive() for client in clients))
    except BaseException:
        group.stop.set()
        raise
    finally:
        for client in clients:
            client.join(600)
    assert not group.errors, group.errors
    return group, killer.killed


def observe(group: ClientGroup) -> None:
    """Add the final state of each name to the history."""
    observer = Client(group, 0)
    for name in group.history.by_name():
        assert observer.get(name) != "unknown"


@pytest.mark.timeout(0)
def test_promises_hold_under_random_kills(tmp_path: Path) -> None:
    """No acknowledged artifact is lost or made twice, one creation wins each name, and no process or file is left."""
    seeded_ = seeded()
    ledger = tmp_path / "ledger"
    server = ToolServer(TOOL, tmp_path / "volume")
    begun = time.monotonic()
    try:
        server.start()
        group, killed = campaign(server, ledger, seeded_)
        until(server.container.is_healthy, STUCK_S)
        longest_s = wait_until_all_final(server, STUCK_S)
        observe(group)
        # Observe a second time: final phases must not change by one more crash.
        server.kill()
        server.start()
        observe(group)
        until(lambda: not leftover_files(server.volume), STUCK_S)
        until(lambda: not remaining_processes(server, ledger), 10)
        check(group, server, ledger)
        report(group, server, killed, longest_s, time.monotonic() - begun)
    finally:
        server.end()


def check(group: ClientGroup, server: ToolServer, ledger: Path) -> None:
    """Check the history, the files and the starts."""
    found = violations(group.history)
    names = requests.get(f"{server.url}/artifacts", timeout=30).json()
    found += [wrong for name in names if (wrong := fault_of(server, name))]
    found += [f"{token} began while another ran" for token in overlaps(ledger)]
    found += [f"{token} ran {count} times" for token, count in Counter(starts_of(ledger)).items() if count > 1]
    kept = {f"t{name[1:]}": times for name, times in undeleted_names(group.history).items() if name.startswith("n")}
    found += wrong_order(starts_of(ledger), kept, "started")
    assert not found, "\n".join(found[:20])


def report(group: ClientGroup, server: ToolServer, killed: Counter[str], longest_s: float, took_s: float) -> None:
    """Print the numbers of the campaign."""
    statuses = requests.get(f"{server.url}/artifacts?detail=1", timeout=30).json()
    phases = Counter(status["phase"] for status in statuses)
    kinds = Counter(f"{event.kind} {event.outcome}" for event in group.history.events)
    print(
        f"{group.created} creations, {killed.total()} kills {dict(killed)}, {len(group.history.events)} requests "
        f"{dict(kinds)}, left {dict(phases)}; the queue stood still for {longest_s:.1f} s at most; {took_s:.0f} s"
    )
