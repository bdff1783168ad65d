"""The executions that tools have written down, and a check that kills explain every repeated one."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from tests.contract.tools.server import is_alive

__all__ = ["Execution", "executions", "unexplained", "working_pid"]

# This time may pass from the kill of a worker to the end of its child, or from a child's start to its first line.
_SLACK_S = 1.0
_CONTAINERS = {"source_left": "source", "source_right": "source", "combine": "combine", "refine": "combine"}


@dataclass(slots=True)
class Execution:
    """One execution of a tool; `done` is None if it was interrupted."""

    artifact: str
    pid: int
    begun: float
    done: float | None = None

    @property
    def container(self) -> str:
        """Return the container of the execution."""
        return container_of(self.artifact)


def container_of(artifact: str) -> str:
    """Return the container of an artifact of the pipeline of five steps."""
    step = artifact.partition("_")[2]
    return _CONTAINERS.get(step, step)


def executions(project: Path) -> list[Execution]:
    """Return all executions in the order of their starts."""
    found: list[Execution] = []
    ledger = project / "ledger"
    for line in ledger.read_text().splitlines() if ledger.exists() else ():
        at, event, artifact, pid = line.split()
        if event == "begun":
            found.append(Execution(artifact, int(pid), float(at)))
        else:
            next(each for each in reversed(found) if each.pid == int(pid)).done = float(at)
    return found


def working_pid(project: Path, container: str) -> int | None:
    """Return the process that now makes an artifact of a container."""
    undone = [each for each in executions(project) if each.container == container and each.done is None]
    return undone[-1].pid if undone and is_alive(undone[-1].pid) else None


def unexplained(
    found: Collection[Execution], kills: dict[str, list[float]], artifacts: Collection[str]
) -> Iterator[str]:
    """Yield wrong executions; `kills` are the times of kills that interrupt the work of a container."""
    for artifact in artifacts:
        own = [each for each in found if each.artifact == artifact]
        if not own:
            yield f"{artifact} was never made"
        for former, later in pairwise(own):
            moments = kills.get(former.container, [])
            if not any(former.begun - _SLACK_S <= moment <= later.begun for moment in moments):
                yield f"{artifact} was made at {former.begun:.1f} and, though nothing ended that, at {later.begun:.1f}"
    for each in found:
        if each.artifact not in artifacts:
            yield f"{each.artifact} was made, and nobody asked for it"
