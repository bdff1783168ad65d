"""Create, make, re-use, cancel and delete: one process does each, and tests disturb it in the middle."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

from tests.contract.tools.server import ToolServer
from tests.crash.final_checks import fault_of
from tests.crash.history import answer_of
from tests.crash.model import FINAL
from tests.crash.tool.careful import content
from tests.waiting import until

__all__ = ["OPERATIONS", "ContainerUnderTest", "Operation"]

_FINAL_WITHIN_S = 60
_SIZE = 5000


@dataclass(slots=True)
class ContainerUnderTest:
    """A container, and its acknowledged state: final phases by name, and deleted names."""

    server: ToolServer
    ledger: Path
    final_phases: dict[str, str] = field(default_factory=dict)
    deleted_names: set[str] = field(default_factory=set)

    @property
    def url(self) -> str:
        """Return the URL of all artifacts."""
        return f"{self.server.url}/artifacts"

    def create(
        self, name: str, *, text: str | None = None, reuse: bool = False, **parameters: Any
    ) -> requests.Response | None:
        """Create an artifact with an upload, with its name as key; return the answer, or None without one."""
        text = text or name
        data = json.dumps({"text": text, "ledger": str(self.ledger), **parameters})
        parts = {"name": (None, name), "data": (None, data), "upload": ("upload", content(text, _SIZE))}
        url = f"{self.url}?reuse={'true' if reuse else 'false'}"
        return answer_of("POST", url, files=parts, headers={"Idempotency-Key": name})[0]

    def ensure_created(self, name: str, **parameters: Any) -> None:
        """Create an artifact, and repeat the request until a 200."""

        def is_created() -> bool:
            answer = self.create(name, **parameters)
            return answer is not None and answer.status_code == 200

        until(is_created, _FINAL_WITHIN_S)
        self.deleted_names.discard(name)

    def phase(self, name: str) -> str | None:
        """Return the phase, "missing" after a 404, or None without an answer."""
        answer = answer_of("GET", f"{self.url}/{name}/status")[0]
        if answer is None or answer.status_code >= 500:
            return None
        return "missing" if answer.status_code == 404 else str(answer.json()["phase"])

    def ensure_running(self, name: str) -> None:
        """Create an artifact that runs for long, and wait until it runs."""
        self.ensure_created(name, seconds=300, family=True)
        until(lambda: self.phase(name) == "running" and f"begin {name}\n" in self.ledger.read_text(), _FINAL_WITHIN_S)

    def wait_until_final(self, name: str) -> str:
        """Wait until an artifact is final, and check its files; return the phase, which must never change."""
        until(lambda: self.phase(name) in {*FINAL, "missing"}, _FINAL_WITHIN_S)
        phase = str(until(lambda: self.phase(name), _FINAL_WITHIN_S))
        assert phase != "missing", f"{name} is lost"
        assert (wrong := fault_of(self.server, name)) is None, wrong
        self.final_phases[name] = phase
        return phase

    def ensure_completed(self, name: str, **parameters: Any) -> None:
        """Create an artifact, and wait until it is completed."""
        self.ensure_created(name, **parameters)
        assert self.wait_until_final(name) == "completed", self.reason(name)

    def reason(self, name: str) -> str:
        """Return the reason of the failure."""
        return str(requests.get(f"{self.url}/{name}/status", timeout=30).json()["reason"])

    def ensure_ended(self, name: str) -> None:
        """Cancel an artifact, and wait until it is final or missing."""
        until(lambda: answer_of("POST", f"{self.url}/{name}/cancel")[0] is not None, _FINAL_WITHIN_S)
        until(lambda: self.phase(name) in {*FINAL, "missing"}, _FINAL_WITHIN_S)

    def ensure_deleted(self, name: str) -> None:
        """Delete an artifact, and repeat the request until there is an answer."""

        def is_gone() -> bool:
            answer = answer_of("DELETE", f"{self.url}/{name}")[0]
            return answer is not None and answer.status_code in (200, 404)

        until(is_gone, _FINAL_WITHIN_S)
        self.deleted_names.add(name)
        self.final_phases.pop(name, None)

    def check_acknowledged(self) -> None:
        """Check that exactly the acknowledged artifacts exist, with their phases and all their files."""
        listed = {s["name"]: s["phase"] for s in requests.get(f"{self.url}?detail=1", timeout=30).json()}
        assert listed == self.final_phases, f"there is {listed} instead of {self.final_phases}"
        assert not self.deleted_names & listed.keys()
        for name in listed:
            assert (wrong := fault_of(self.server, name)) is None, wrong


Act = Callable[[ContainerUnderTest, str], "requests.Response | None"]


@dataclass(frozen=True, slots=True)
class Operation:
    """`prepare`, then `act` while the `victim` is disturbed, then `check` of the result."""

    name: str
    victim: str
    """`server` for the process that answers, `mule` for the worker, `child` for the process that runs the next tool."""
    prepare: Callable[[ContainerUnderTest, str], None]
    act: Act
    check: Callable[[ContainerUnderTest, str, requests.Response | None, bool], None]

    def pid(self, server: ToolServer) -> int:
        """Return the process to disturb."""
        if self.victim == "server":
            return server.workers[0]
        return server.mule if self.victim == "mule" else server.child()


def _nothing(_: ContainerUnderTest, __: str) -> None:
    pass


def _is_ok(answer: requests.Response | None) -> bool:
    return answer is not None and answer.status_code == 200


def _check_created(tested: ContainerUnderTest, name: str, answer: requests.Response | None, is_killed: bool) -> None:
    """An acknowledged artifact exists. Any other exists completely or not at all, and can be created again."""
    phase = until(lambda: tested.phase(name), _FINAL_WITHIN_S)
    assert phase != "missing" or not _is_ok(answer), f"{name} was acknowledged and is lost"
    tested.ensure_created(name)
    phase = tested.wait_until_final(name)
    assert phase == "completed", f"{phase}: {tested.reason(name)}"
    assert tested.ledger.read_text().count(f"begin {name}\n") == 1


def _check_made(tested: ContainerUnderTest, name: str, answer: requests.Response | None, is_killed: bool) -> None:
    """The artifact is completed with all files, or it serves no data; the tool has started once at most."""
    assert _is_ok(answer)
    phase = tested.wait_until_final(name)
    assert phase in ({"completed", "interrupted", "failed"} if is_killed else {"completed", "failed"}), phase
    if phase != "completed":
        assert tested.reason(name) not in ("", "None")
        data = requests.get(f"{tested.url}/{name}/data", timeout=30)
        assert (data.status_code, data.json()["error"]["code"]) == (404, "not_ready")
    assert tested.ledger.read_text().count(f"begin {name}\n") <= 1


def _create_and_wait(tested: ContainerUnderTest, name: str) -> requests.Response | None:
    answer = tested.create(name)
    until(lambda: tested.phase(name) in FINAL, _FINAL_WITHIN_S)
    return answer


def _prepare_queued(tested: ContainerUnderTest, name: str) -> None:
    tested.ensure_running(f"{name}-before")
    tested.ensure_created(name)


def _cancel(tested: ContainerUnderTest, name: str) -> requests.Response | None:
    return answer_of("POST", f"{tested.url}/{name}/cancel")[0]


def _check_queued_cancelled(
    tested: ContainerUnderTest, name: str, answer: requests.Response | None, is_killed: bool
) -> None:
    phase = until(lambda: tested.phase(name), _FINAL_WITHIN_S)
    assert phase == "cancelled" if _is_ok(answer) else phase in ("queued", "cancelled"), phase
    tested.ensure_ended(f"{name}-before")
    tested.wait_until_final(f"{name}-before")
    expected = "cancelled" if phase == "cancelled" else "completed"
    assert tested.wait_until_final(name) == expected


def _check_cancelled(tested: ContainerUnderTest, name: str, answer: requests.Response | None, is_killed: bool) -> None:
    """The cancellation was accepted, or can be repeated; no process runs on."""
    if not _is_ok(answer):
        tested.ensure_ended(name)
    phase = tested.wait_until_final(name)
    assert phase in ({"cancelled", "interrupted"} if is_killed else {"cancelled", "failed"}), phase


def _delete(tested: ContainerUnderTest, name: str) -> requests.Response | None:
    return answer_of("DELETE", f"{tested.url}/{name}")[0]


def _check_deleted(tested: ContainerUnderTest, name: str, answer: requests.Response | None, is_killed: bool) -> None:
    """After a 200 it is deleted. Without an answer it is deleted or complete. Once it is deleted, the name is free."""
    phase = until(lambda: tested.phase(name), _FINAL_WITHIN_S)
    assert phase == "missing" or not _is_ok(answer)
    if phase == "completed":
        assert (wrong := fault_of(tested.server, name)) is None, wrong
    tested.ensure_deleted(name)
    assert until(lambda: tested.phase(name), _FINAL_WITHIN_S) == "missing"
    tested.ensure_created(name, seconds=0.01)
    assert tested.wait_until_final(name) == "completed"


def _prepare_equal(tested: ContainerUnderTest, name: str) -> None:
    """Queue two equal requests behind an artifact that runs for long."""
    tested.ensure_running(f"{name}-before")
    tested.ensure_created(f"{name}-source")
    tested.ensure_created(name, text=f"{name}-source", reuse=True)


def _cancel_and_re_use(tested: ContainerUnderTest, name: str) -> requests.Response | None:
    answer = _cancel(tested, f"{name}-before")
    until(lambda: tested.phase(name) in FINAL, _FINAL_WITHIN_S)
    return answer


def _check_re_used(tested: ContainerUnderTest, name: str, answer: requests.Response | None, is_killed: bool) -> None:
    """Completed artifacts have all files. The second one re-uses the first if that is completed."""
    tested.ensure_ended(f"{name}-before")
    tested.wait_until_final(f"{name}-before")
    source, phase = tested.wait_until_final(f"{name}-source"), tested.wait_until_final(name)
    assert {source, phase} <= {"completed", "interrupted", "failed"}, (source, phase)
    status = requests.get(f"{tested.url}/{name}/status", timeout=30).json()
    if phase == "completed":
        assert status["reused_from"] == (f"{name}-source" if source == "completed" else None)
    data = requests.get(f"{tested.url}/{name}/data", timeout=30)
    assert data.status_code == (200 if phase == "completed" else 404)


def _cancel_and_wait(tested: ContainerUnderTest, name: str) -> requests.Response | None:
    answer = _cancel(tested, name)
    deadline = time.monotonic() + 30
    while tested.phase(name) == "running" and time.monotonic() < deadline:
        time.sleep(0.02)
    return answer


OPERATIONS = (
    Operation("create", "server", _nothing, ContainerUnderTest.create, _check_created),
    Operation("make", "mule", _nothing, _create_and_wait, _check_made),
    Operation("make", "child", _nothing, _create_and_wait, _check_made),
    Operation("cancel queued", "server", _prepare_queued, _cancel, _check_queued_cancelled),
    Operation("cancel running", "server", ContainerUnderTest.ensure_running, _cancel, _check_cancelled),
    Operation("cancel running", "mule", ContainerUnderTest.ensure_running, _cancel_and_wait, _check_cancelled),
    Operation("delete", "server", ContainerUnderTest.ensure_completed, _delete, _check_deleted),
    Operation("delete running", "server", ContainerUnderTest.ensure_running, _delete, _check_deleted),
    Operation("delete running", "mule", ContainerUnderTest.ensure_running, _delete, _check_deleted),
    Operation("re-use", "mule", _prepare_equal, _cancel_and_re_use, _check_re_used),
)
