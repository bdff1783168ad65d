"""Create, make, take over, cancel and delete, each done by one process that can be disturbed in the middle of it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

from tests.contract.tools.server import ToolServer
from tests.crash.history import answer_of
from tests.crash.model import FINAL
from tests.crash.tool.careful import content
from tests.crash.verdict import whole
from tests.waiting import until

__all__ = ["OPERATIONS", "Bench", "Operation"]

_FINAL_WITHIN_S = 60
_SIZE = 5000


@dataclass(slots=True)
class Bench:
    """A container, and what it acknowledged: final phases by name, and names that are gone."""

    server: ToolServer
    ledger: Path
    settled: dict[str, str] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)

    @property
    def url(self) -> str:
        """Return the URL of all artifacts."""
        return f"{self.server.url}/artifacts"

    def create(
        self, name: str, *, text: str | None = None, reuse: bool = False, **parameters: Any
    ) -> requests.Response | None:
        """Ask for an artifact with an uploaded file, with its name as key; None when nobody answered."""
        text = text or name
        data = json.dumps({"text": text, "ledger": str(self.ledger), **parameters})
        parts = {"name": (None, name), "data": (None, data), "upload": ("upload", content(text, _SIZE))}
        url = f"{self.url}?reuse={'true' if reuse else 'false'}"
        return answer_of("POST", url, files=parts, headers={"Idempotency-Key": name})[0]

    def created(self, name: str, **parameters: Any) -> None:
        """Create for sure, however often the server has to be asked."""

        def is_created() -> bool:
            answer = self.create(name, **parameters)
            return answer is not None and answer.status_code == 200

        until(is_created, _FINAL_WITHIN_S)
        self.gone.discard(name)

    def phase(self, name: str) -> str | None:
        """Return the phase, "missing" when there is nothing, None when nobody answers."""
        answer = answer_of("GET", f"{self.url}/{name}/status")[0]
        if answer is None or answer.status_code >= 500:
            return None
        return "missing" if answer.status_code == 404 else str(answer.json()["phase"])

    def running(self, name: str) -> None:
        """Create something that runs for long, and wait until it does."""
        self.created(name, seconds=300, family=True)
        until(lambda: self.phase(name) == "running" and f"begin {name}\n" in self.ledger.read_text(), _FINAL_WITHIN_S)

    def final(self, name: str) -> str:
        """Wait until it is final, and whole if it is completed; return the phase, which never changes from now on."""
        until(lambda: self.phase(name) in {*FINAL, "missing"}, _FINAL_WITHIN_S)
        phase = str(until(lambda: self.phase(name), _FINAL_WITHIN_S))
        assert phase != "missing", f"{name} is lost"
        assert (wrong := whole(self.server, name)) is None, wrong
        self.settled[name] = phase
        return phase

    def completed(self, name: str, **parameters: Any) -> None:
        """Have a completed artifact."""
        self.created(name, **parameters)
        assert self.final(name) == "completed", self.reason(name)

    def reason(self, name: str) -> str:
        """Return why it failed."""
        return str(requests.get(f"{self.url}/{name}/status", timeout=30).json()["reason"])

    def ended(self, name: str) -> None:
        """Make sure that an artifact that runs for long does so no more."""
        until(lambda: answer_of("POST", f"{self.url}/{name}/cancel")[0] is not None, _FINAL_WITHIN_S)
        until(lambda: self.phase(name) in {*FINAL, "missing"}, _FINAL_WITHIN_S)

    def deleted(self, name: str) -> None:
        """Delete for sure."""

        def is_gone() -> bool:
            answer = answer_of("DELETE", f"{self.url}/{name}")[0]
            return answer is not None and answer.status_code in (200, 404)

        until(is_gone, _FINAL_WITHIN_S)
        self.gone.add(name)
        self.settled.pop(name, None)

    def check_kept(self) -> None:
        """Check that all that was acknowledged is there, in the phase that it had, and whole; and nothing else is."""
        listed = {s["name"]: s["phase"] for s in requests.get(f"{self.url}?detail=1", timeout=30).json()}
        assert listed == self.settled, f"there is {listed} instead of {self.settled}"
        assert not self.gone & listed.keys()
        for name in listed:
            assert (wrong := whole(self.server, name)) is None, wrong


Act = Callable[[Bench, str], "requests.Response | None"]


@dataclass(frozen=True, slots=True)
class Operation:
    """`prepare`, then `act` while the `victim` is disturbed, then `check` what became of it."""

    name: str
    victim: str
    """`server` for the process that answers, `mule` for the worker, `child` for what runs the tool next."""
    prepare: Callable[[Bench, str], None]
    act: Act
    check: Callable[[Bench, str, requests.Response | None, bool], None]

    def pid(self, server: ToolServer) -> int:
        """Return the process that is disturbed."""
        if self.victim == "server":
            return server.workers[0]
        return server.mule if self.victim == "mule" else server.child()


def _nothing(_: Bench, __: str) -> None:
    pass


def _is_ok(answer: requests.Response | None) -> bool:
    return answer is not None and answer.status_code == 200


def _check_created(bench: Bench, name: str, answer: requests.Response | None, is_killed: bool) -> None:
    """What was acknowledged is there; what was not is there as a whole or not at all, and can be asked for again."""
    phase = until(lambda: bench.phase(name), _FINAL_WITHIN_S)
    assert phase != "missing" or not _is_ok(answer), f"{name} was acknowledged and is lost"
    bench.created(name)
    phase = bench.final(name)
    assert phase == "completed", f"{phase}: {bench.reason(name)}"
    assert bench.ledger.read_text().count(f"begin {name}\n") == 1


def _check_made(bench: Bench, name: str, answer: requests.Response | None, is_killed: bool) -> None:
    """It is completed and whole, or it is not completed and serves nothing; it was begun once."""
    assert _is_ok(answer)
    phase = bench.final(name)
    assert phase in ({"completed", "interrupted", "failed"} if is_killed else {"completed", "failed"}), phase
    if phase != "completed":
        assert bench.reason(name) not in ("", "None")
        data = requests.get(f"{bench.url}/{name}/data", timeout=30)
        assert (data.status_code, data.json()["error"]["code"]) == (404, "not_ready")
    assert bench.ledger.read_text().count(f"begin {name}\n") <= 1


def _create_and_wait(bench: Bench, name: str) -> requests.Response | None:
    answer = bench.create(name)
    until(lambda: bench.phase(name) in FINAL, _FINAL_WITHIN_S)
    return answer


def _prepare_queued(bench: Bench, name: str) -> None:
    bench.running(f"{name}-before")
    bench.created(name)


def _cancel(bench: Bench, name: str) -> requests.Response | None:
    return answer_of("POST", f"{bench.url}/{name}/cancel")[0]


def _check_queued_cancelled(bench: Bench, name: str, answer: requests.Response | None, is_killed: bool) -> None:
    phase = until(lambda: bench.phase(name), _FINAL_WITHIN_S)
    assert phase == "cancelled" if _is_ok(answer) else phase in ("queued", "cancelled"), phase
    bench.ended(f"{name}-before")
    bench.final(f"{name}-before")
    expected = "cancelled" if phase == "cancelled" else "completed"
    assert bench.final(name) == expected


def _check_cancelled(bench: Bench, name: str, answer: requests.Response | None, is_killed: bool) -> None:
    """Its end was asked for, or nobody answered and it can be asked for again; nothing of it runs on."""
    if not _is_ok(answer):
        bench.ended(name)
    phase = bench.final(name)
    assert phase in ({"cancelled", "interrupted"} if is_killed else {"cancelled", "failed"}), phase


def _delete(bench: Bench, name: str) -> requests.Response | None:
    return answer_of("DELETE", f"{bench.url}/{name}")[0]


def _check_deleted(bench: Bench, name: str, answer: requests.Response | None, is_killed: bool) -> None:
    """After a 200 it is gone; after no answer it is gone or all there; the name is free once it is deleted."""
    phase = until(lambda: bench.phase(name), _FINAL_WITHIN_S)
    assert phase == "missing" or not _is_ok(answer)
    if phase == "completed":
        assert (wrong := whole(bench.server, name)) is None, wrong
    bench.deleted(name)
    assert until(lambda: bench.phase(name), _FINAL_WITHIN_S) == "missing"
    bench.created(name, seconds=0.01)
    assert bench.final(name) == "completed"


def _prepare_equal(bench: Bench, name: str) -> None:
    """Queue two equal requests behind one that runs for long."""
    bench.running(f"{name}-before")
    bench.created(f"{name}-source")
    bench.created(name, text=f"{name}-source", reuse=True)


def _take_over(bench: Bench, name: str) -> requests.Response | None:
    answer = _cancel(bench, f"{name}-before")
    until(lambda: bench.phase(name) in FINAL, _FINAL_WITHIN_S)
    return answer


def _check_taken_over(bench: Bench, name: str, answer: requests.Response | None, is_killed: bool) -> None:
    """Whatever is completed is whole; what could be taken over was not computed; nothing is half of both."""
    bench.ended(f"{name}-before")
    bench.final(f"{name}-before")
    source, phase = bench.final(f"{name}-source"), bench.final(name)
    assert {source, phase} <= {"completed", "interrupted", "failed"}, (source, phase)
    status = requests.get(f"{bench.url}/{name}/status", timeout=30).json()
    if phase == "completed":
        assert status["reused_from"] == (f"{name}-source" if source == "completed" else None)
    data = requests.get(f"{bench.url}/{name}/data", timeout=30)
    assert data.status_code == (200 if phase == "completed" else 404)


def _cancel_and_wait(bench: Bench, name: str) -> requests.Response | None:
    answer = _cancel(bench, name)
    deadline = time.monotonic() + 30
    while bench.phase(name) == "running" and time.monotonic() < deadline:
        time.sleep(0.02)
    return answer


OPERATIONS = (
    Operation("create", "server", _nothing, Bench.create, _check_created),
    Operation("make", "mule", _nothing, _create_and_wait, _check_made),
    Operation("make", "child", _nothing, _create_and_wait, _check_made),
    Operation("cancel queued", "server", _prepare_queued, _cancel, _check_queued_cancelled),
    Operation("cancel running", "server", Bench.running, _cancel, _check_cancelled),
    Operation("cancel running", "mule", Bench.running, _cancel_and_wait, _check_cancelled),
    Operation("delete", "server", Bench.completed, _delete, _check_deleted),
    Operation("delete running", "server", Bench.running, _delete, _check_deleted),
    Operation("delete running", "mule", Bench.running, _delete, _check_deleted),
    Operation("take over", "mule", _prepare_equal, _take_over, _check_taken_over),
)
