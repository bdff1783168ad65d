"""Disturb each system call of create, make, re-use, cancel and delete: kill the process, or let the disk refuse."""

from __future__ import annotations

import os
import re
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from tests.contract.tools.server import ToolServer
from tests.crash.final_checks import leftover_files, overlaps, remaining_processes
from tests.crash.operations import OPERATIONS, ContainerUnderTest, Operation
from tests.crash.scale import EVERY, IS_SHORT
from tests.crash.tracing import Strace, why_not
from tests.waiting import until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(why_not() is not None, reason=str(why_not())),
    pytest.mark.timeout(0),
]
TOOL = Path(__file__).parent / "tool"
# A disk can refuse these calls: to write data, to sync it, to make a name.
_DISK_CALLS = (
    "write,pwrite64,fsync,fdatasync,syncfs,?rename,?renameat,renameat2,?link,linkat,?mkdir,mkdirat,ftruncate,fchmod"
)
# These calls change files or processes. The worker makes thousands of other calls when it looks for processes that are
# left. A kill before one of those has the same effect as a kill before the next of these. `?` marks names that only
# some processors have.
_CHANGING_CALLS = f"{_DISK_CALLS},writev,?unlink,unlinkat,?rmdir,flock,clone,clone3,?vfork,kill,wait4"
_SOME = OPERATIONS[:2] if IS_SHORT else OPERATIONS
_IDS = [f"{operation.name} ({operation.victim})" for operation in _SOME]
Case = tuple[str, int]
"""A system call, and its number among the equal calls of the operation."""


@pytest.fixture
def tested(tmp_path: Path) -> Iterator[ContainerUnderTest]:
    """Start a container with one thread, so that the system calls always come in the same order."""
    server = ToolServer(TOOL, tmp_path / "volume", BONSEYES_PROCESSES="1", BONSEYES_THREADS="1")
    try:
        server.start()
        tested = ContainerUnderTest(server, tmp_path / "ledger")
        tested.ensure_completed("witness")
        yield tested
    finally:
        server.end()


def cases_of(tested: ContainerUnderTest, operation: Operation, calls: str, every: int) -> list[Case]:
    """Run the operation once, undisturbed; return every `every`th of its system calls."""
    with traced(tested, operation, "base", "-e", f"trace={calls}") as strace:
        answer = operation.act(tested, "base")
    operation.check(tested, "base", answer, False)
    # strace counts the calls of each thread.
    counts: dict[str, Counter[str]] = {}
    for line in strace.lines():
        if found := re.match(r"(\d+) +(\w+)\(", line):
            counts.setdefault(found[2], Counter())[found[1]] += 1
    cases = [(call, n) for call, threads in counts.items() for n in range(1, max(threads.values()) + 1)]
    return cases[:: max(1, every)]


def renew(tested: ContainerUnderTest, operation: Operation) -> None:
    """Kill the process of the operation, so that a new one replaces it."""
    before = operation.pid(tested.server)
    os.kill(before, signal.SIGKILL)
    until(lambda: operation.pid(tested.server) != before, 60)


def traced(tested: ContainerUnderTest, operation: Operation, name: str, *options: str) -> Strace:
    """Prepare the operation, and return the trace of its process."""
    until(tested.server.container.is_healthy, 60)
    operation.prepare(tested, name)
    output = tested.ledger.with_name("trace")
    output.unlink(missing_ok=True)
    return Strace([operation.pid(tested.server)], output, *options)


Judge = Callable[["requests.Response | None", list[str]], None]


def disturb(
    tested: ContainerUnderTest,
    operation: Operation,
    cases: list[Case],
    options: Callable[[str, int], list[str]],
    judge: Judge = lambda *_: None,
) -> Counter[str]:
    """Run the operation once for each case, with that call disturbed; return the calls that were hit."""
    done: Counter[str] = Counter()
    for call, number in cases:
        is_hit = disturb_one(tested, operation, f"{call}{number}", options(call, number), judge)
        if not is_hit:
            # A process that has done the same before makes fewer calls; a new one may reach this call.
            renew(tested, operation)
            is_hit = disturb_one(tested, operation, f"{call}{number}-again", options(call, number), judge)
        done.update([call] if is_hit else [])
    assert done, "nothing was disturbed"
    return done


def disturb_one(tested: ContainerUnderTest, operation: Operation, name: str, options: list[str], judge: Judge) -> bool:
    """Run the operation once with one call disturbed; tell whether it reached that call."""
    with traced(tested, operation, name, *options) as strace:
        answer = operation.act(tested, name)
    hits = strace.injected()
    try:
        judge(answer, hits)
        until(tested.server.container.is_healthy, 60)
        operation.check(tested, name, answer, any("SIGKILL" in line for line in hits))
    except (AssertionError, requests.RequestException) as error:
        tail = "\n".join(strace.lines()[-12:])
        raise AssertionError(f"{name} of {operation.name}: {hits}\n{error}\n{tail}") from error
    return bool(hits)


def check_all(tested: ContainerUnderTest) -> None:
    """Check the promises at the end, and again after one more crash."""
    tested.ensure_completed("after")
    tested.check_acknowledged()
    tested.server.kill()
    tested.server.start()
    tested.check_acknowledged()
    until(lambda: not leftover_files(tested.server.volume), 20)
    until(lambda: not remaining_processes(tested.server, tested.ledger), 20)
    assert not overlaps(tested.ledger)


@pytest.mark.parametrize("operation", _SOME, ids=_IDS)
def test_promises_hold_if_killed_at_each_call(tested: ContainerUnderTest, operation: Operation) -> None:
    """Each system call is the last one of the process once."""
    calls = "all" if operation.victim == "server" else _CHANGING_CALLS
    if operation.victim == "mule":
        # After each kill the process is new, and makes more calls than a warm one.
        renew(tested, operation)
    cases = cases_of(tested, operation, calls, EVERY)

    def options(call: str, number: int) -> list[str]:
        return ["-e", f"trace={calls}", "-e", f"inject={call}:signal=KILL:when={number}"]

    done = disturb(tested, operation, cases, options)
    check_all(tested)
    print(f"{operation.name} ({operation.victim}): killed at {done.total()} of {len(cases)} calls")


@pytest.mark.parametrize("error", ["EIO"] if IS_SHORT else ["ENOSPC", "EIO"])
@pytest.mark.parametrize("operation", _SOME, ids=_IDS)
def test_no_promise_breaks_if_each_disk_call_fails(
    tested: ContainerUnderTest, operation: Operation, error: str
) -> None:
    """The disk refuses each write, sync or new name once: no false success, no loss, and the container goes on."""
    cases = cases_of(tested, operation, _DISK_CALLS, EVERY // 4)

    def options(call: str, number: int) -> list[str]:
        return ["-yy", "-e", f"trace={_DISK_CALLS}", "-e", f"inject={call}:error={error}:when={number}"]

    done = disturb(tested, operation, cases, options, check_answer)
    check_all(tested)
    print(f"{operation.name} ({operation.victim}): {error} at {done.total()} of {len(cases)} calls: {dict(done)}")


def test_refused_creation_is_missing_or_complete_after_a_crash(tested: ContainerUnderTest) -> None:
    """The disk has refused a part of it."""
    cases = cases_of(tested, OPERATIONS[0], _DISK_CALLS, 1)
    [*_, (_, syncs)] = [case for case in cases if case[0] == "fdatasync"]
    [*_, (_, writes)] = [case for case in cases if case[0] == "pwrite64"]
    fails_once = [f"inject=fdatasync:error=EIO:when={syncs}"]
    # The row is written but not synced, and it cannot even be overwritten afterwards.
    fails_on = [f"inject=fdatasync:error=EIO:when={syncs}+", f"inject=pwrite64:error=EIO:when={writes + 1}+"]
    for name, injected in {"once": fails_once, "on": fails_on}.items():
        options = [part for inject in injected for part in ("-e", inject)]
        with traced(tested, OPERATIONS[0], name, "-yy", "-e", f"trace={_DISK_CALLS}", *options) as strace:
            answer = tested.create(name)
            tested.server.kill()
        tested.server.start()
        assert answer is not None and answer.status_code == 503, answer
        check_answer(answer, strace.injected())
        phase = tested.phase(name)
        print(f"failing {name}: {phase} after the crash")
        assert phase == "missing" or tested.wait_until_final(name) == "completed", tested.reason(name)
        tested.ensure_completed(name)
    check_all(tested)


def check_answer(answer: requests.Response | None, hits: list[str]) -> None:
    """Check that an error is one of the contract; without an answer, the socket itself must have failed."""
    if answer is None:
        assert any("TCP" in line or "socket" in line for line in hits), hits
        return
    if answer.status_code != 200:
        assert answer.status_code in (503, 507), f"{answer.status_code} {answer.text}: {hits}"
        body = answer.json()["error"]
        assert body["code"] in ("unavailable", "storage_full")
        assert body["message"]
        assert body["request_id"]
