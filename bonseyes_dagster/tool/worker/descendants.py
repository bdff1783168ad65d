"""End all descendants of the worker, in any session; the runner calls this before it publishes an artifact."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import psutil

from bonseyes_dagster.backoff import Backoff

__all__ = ["EndedProcesses", "children_of", "end_below", "end_descendants", "is_reaped"]

END_WITHIN_S = 10.0
_SHORTEST_PAUSE_S = 0.0002
_LONGEST_PAUSE_S = 0.02
# Each round finds processes that were forked during the round before. After the last round all known ones are killed.
_MOST_ROUNDS = 50
# A list of changing processes may miss one, so look twice. Without helpers, waitpid() gives a certain answer.
_EMPTY_LOOKS = 2
_GONE = "ZX"


@dataclass(slots=True)
class EndedProcesses:
    """The processes that were found running, by id: names of the ended ones, reasons of the survivors."""

    ended: dict[int, str] = field(default_factory=dict)
    survivors: dict[int, str] = field(default_factory=dict)

    def __str__(self) -> str:
        names = ", ".join(sorted(set(self.ended.values())))
        count = len(self.ended)
        return f"{count} {'process' if count == 1 else 'processes'} ({names})"

    def reason(self) -> str | None:
        """Return the reason for the failure of the artifact, or None if every process has ended."""
        if not self.survivors:
            return None
        listed = "; ".join(f"{pid} {why}" for pid, why in sorted(self.survivors.items()))
        return f"The tool left processes behind that do not end, so its files may still change: {listed}."


def end_descendants(keep: Iterable[int] = (), *, within_s: float = END_WITHIN_S) -> EndedProcesses:
    """Kill and reap all descendants of this process, except the children `keep` and their descendants.

    This process must be a subreaper: then an orphan becomes its child, and none escapes. All are stopped before the
    first one is killed, so that none can start a new process when another dies.
    """
    kept = frozenset(keep)
    ending = EndedProcesses()
    if not kept and not _has_children():
        return ending
    deadline_s = time.monotonic() + within_s
    empty_looks = 0
    while empty_looks < _EMPTY_LOOKS and (kept or _has_children()):
        # Zombies count: a process that keeps forking and exiting may be missing in a list, but it leaves them.
        is_empty = kept.issuperset(children_of(os.getpid()))
        found = _stop_all(kept, ending.ended)
        empty_looks = empty_looks + bool(kept) if is_empty and not found else 0
        for pid in found:
            _send(pid, signal.SIGKILL)
        _reap(found, kept, deadline_s)
        if found and time.monotonic() >= deadline_s:
            ending.survivors = {pid: _why(pid) for pid in _tree(_own_children(kept))}
            break
    for pid in ending.survivors:
        ending.ended.pop(pid, None)
    return ending


def end_below(
    roots: Iterable[int], is_wanted: Callable[[int], bool], *, within_s: float = END_WITHIN_S
) -> EndedProcesses:
    """Kill the wanted descendants of `roots`, but not `roots`; return when they are dead. Their parents reap them."""
    ending = EndedProcesses()
    found = [pid for root in roots for pid in _tree(children_of(root)) if is_wanted(pid)]
    for pid in found:
        ending.ended[pid] = _name_and_state(pid)[0]
        _send(pid, signal.SIGKILL)
    deadline_s = time.monotonic() + within_s
    while alive := [pid for pid in found if _name_and_state(pid)[1] not in _GONE]:
        if time.monotonic() >= deadline_s:
            ending.survivors = {pid: _why(pid) for pid in alive}
            break
        time.sleep(_LONGEST_PAUSE_S)
    return ending


def _has_children() -> bool:
    """Ask the kernel whether this process has children, and reap ended ones. The kernel misses none."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def _stop_all(kept: Collection[int], running: dict[int, str]) -> list[int]:
    """Stop all descendants except `kept`, until there is no new one; return them, and add running ones to `running`."""
    stopped: dict[int, None] = {}
    for _ in range(_MOST_ROUNDS):
        new = []
        for pid in _tree(_own_children(kept)):
            if pid not in stopped:
                # Stop it at once: a process that keeps forking and exiting would be gone once the list is complete.
                _send(pid, signal.SIGSTOP)
                new.append(pid)
        if not new:
            break
        for pid in new:
            stopped[pid] = None
            name, state = _name_and_state(pid)
            if state not in _GONE:
                running.setdefault(pid, name)
    return list(stopped)


def _reap(killed: Collection[int], kept: Collection[int], deadline_s: float) -> None:
    """Reap ended children until none is left, or until there is a child that was not killed."""
    backoff = Backoff(_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S)
    while True:
        left = _own_children(kept)
        if not left or any(pid not in killed for pid in left) or time.monotonic() >= deadline_s:
            return
        time.sleep(backoff.take())


def is_reaped(pid: int) -> bool:
    """Reap a child that has ended; tell whether it is gone."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True


def _own_children(kept: Collection[int]) -> list[int]:
    """Return the children of this process except `kept`, newest first; reap ended ones."""
    return [pid for pid in reversed(children_of(os.getpid())) if pid not in kept and not is_reaped(pid)]


def _tree(pids: Iterable[int]) -> Iterator[int]:
    """Yield `pids`, then their children, and so on; children are listed only after their parents were yielded."""
    level = list(pids)
    while level:
        yield from level
        level = [child for pid in level for child in children_of(pid)]


def children_of(pid: int) -> list[int]:
    """Return the children of a process, zombies included; an empty list if the process has ended."""
    if not _lists_children():
        try:
            return [child.pid for child in psutil.Process(pid).children()]
        except psutil.NoSuchProcess:
            return []
    found = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208 - must be fast
            with open(f"/proc/{pid}/task/{task}/children", "rb") as file:  # noqa: PTH123
                found += file.read().split()
    except OSError:  # it has ended
        pass
    return [int(child) for child in found]


@cache
def _lists_children() -> bool:
    """Tell whether this kernel lists the children of a process; otherwise psutil checks all processes."""
    return Path(f"/proc/self/task/{os.getpid()}/children").exists()


def _send(pid: int, number: int) -> None:
    # A process that may not be killed is found again and becomes a survivor.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def _name_and_state(pid: int) -> tuple[str, str]:
    """Return the name of a process's program, and the letter of its state; `X` if it has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "", "X"
    name, _, rest = stat.partition("(")[2].rpartition(")")
    return name, rest.split()[0]


def _why(pid: int) -> str:
    """Return the reason why a process has not ended."""
    name, state = _name_and_state(pid)
    try:
        os.kill(pid, signal.SIGKILL)
    except PermissionError:
        return f"({name}) belongs to another user"
    except ProcessLookupError:
        pass
    return f"({name}) waits for a disk or a device" if state == "D" else f"({name}) still runs"
