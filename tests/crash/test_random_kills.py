"""Clients create, read, cancel and delete while every kind of process is killed; a model judges what they saw."""

from __future__ import annotations

import random
import time
from collections import Counter
from pathlib import Path

import pytest
import requests

from tests.contract.tools.server import ToolServer
from tests.crash.clients import Client, Crowd
from tests.crash.history import History
from tests.crash.killer import Killer
from tests.crash.model import stayed, violations, wrong_order
from tests.crash.scale import CREATIONS, KILLS, STUCK_S, seeded
from tests.crash.verdict import drain, leftovers, lingering, overlaps, starts_of, whole
from tests.waiting import until

TOOL = Path(__file__).parent / "tool"
_CLIENTS = 4


def campaign(server: ToolServer, ledger: Path, seeded_: random.Random) -> tuple[Crowd, Counter[str]]:
    """Let the clients create all, and the killer kill as often as it is to."""
    crowd = Crowd(server, History(), ledger, CREATIONS)
    clients = [Client(crowd, seeded_.randrange(2**31)) for _ in range(_CLIENTS)]
    killer = Killer(server, crowd, seeded_)
    for client in clients:
        client.start()
    try:
        killer.kill(KILLS, lambda: not any(client.is_alive() for client in clients))
    except BaseException:
        crowd.stop.set()
        raise
    finally:
        for client in clients:
            client.join(600)
    assert not crowd.errors, crowd.errors
    return crowd, killer.killed


def observe(crowd: Crowd) -> None:
    """Add to the history what each name is in the end."""
    observer = Client(crowd, 0)
    for name in crowd.history.by_name():
        assert observer.get(name) != "unknown"


@pytest.mark.timeout(0)
def test_random_kills(tmp_path: Path) -> None:
    """Nothing acknowledged is lost or doubled, one wins each name, final stays final, nothing is stuck or left."""
    seeded_ = seeded()
    ledger = tmp_path / "ledger"
    server = ToolServer(TOOL, tmp_path / "volume")
    begun = time.monotonic()
    try:
        server.start()
        crowd, killed = campaign(server, ledger, seeded_)
        until(server.container.is_healthy, STUCK_S)
        longest_s = drain(server, STUCK_S)
        observe(crowd)
        # Twice: what is final stays so over one more crash.
        server.kill()
        server.start()
        observe(crowd)
        until(lambda: not leftovers(server.volume), STUCK_S)
        until(lambda: not lingering(server, ledger), 10)
        check(crowd, server, ledger)
        report(crowd, server, killed, longest_s, time.monotonic() - begun)
    finally:
        server.end()


def check(crowd: Crowd, server: ToolServer, ledger: Path) -> None:
    """Judge everything."""
    found = violations(crowd.history)
    names = requests.get(f"{server.url}/artifacts", timeout=30).json()
    found += [wrong for name in names if (wrong := whole(server, name))]
    found += [f"{token} began while another ran" for token in overlaps(ledger)]
    found += [f"{token} ran {count} times" for token, count in Counter(starts_of(ledger)).items() if count > 1]
    kept = {f"t{name[1:]}": times for name, times in stayed(crowd.history).items() if name.startswith("n")}
    found += wrong_order(starts_of(ledger), kept, "started")
    assert not found, "\n".join(found[:20])


def report(crowd: Crowd, server: ToolServer, killed: Counter[str], longest_s: float, took_s: float) -> None:
    """Say what this was."""
    statuses = requests.get(f"{server.url}/artifacts?detail=1", timeout=30).json()
    phases = Counter(status["phase"] for status in statuses)
    kinds = Counter(f"{event.kind} {event.outcome}" for event in crowd.history.events)
    print(
        f"{crowd.created} creations, {killed.total()} kills {dict(killed)}, {len(crowd.history.events)} requests "
        f"{dict(kinds)}, left {dict(phases)}; the queue stood still for {longest_s:.1f} s at most; {took_s:.0f} s"
    )
