"""`python -m benchmarks.idle [SECONDS]`: measures an idle project and prints a Markdown table.

The project in this folder must be up. Wake-ups are voluntary context switches. In Docker, the engine counts the
processor time of a container, and this includes its health checks.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import docker
import psutil

from benchmarks.timing import cpu_s_of
from bonseyes_dagster.docker.project import DockerProject, is_up_in_docker
from bonseyes_dagster.errors import SettingsError
from bonseyes_dagster.project.folder import find_project

ENGINE = ("dockerd", "containerd", "containerd-shim", "containerd-shim-runc-v2", "docker-proxy")
_SWITCHES = re.compile(r"^voluntary_ctxt_switches:\s*(\d+)", re.MULTILINE)
Sample = dict[str, tuple[int, float]]


@dataclass(frozen=True, slots=True)
class Part:
    """The processes of a service, and its container if the project is up in Docker."""

    processes: tuple[psutil.Process, ...]
    container: str | None = None

    def processor_s(self) -> float:
        """Return the processor time since the start."""
        if self.container is None:
            return sum(map(cpu_s_of, self.processes))
        stats = docker.from_env().api.stats(self.container, stream=False, one_shot=True)
        return float(stats["cpu_stats"]["cpu_usage"]["total_usage"]) / 1e9

    def wake_ups(self) -> int:
        """Return the number of voluntary context switches of all threads."""
        return sum(_wake_ups(process.pid) for process in self.processes)


def main() -> None:
    """Take two samples and print the difference."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.idle", description=__doc__)
    parser.add_argument("seconds", nargs="?", type=float, default=60.0, help="how long to measure (%(default)s)")
    seconds: float = parser.parse_args().seconds
    parts = _in_docker() if is_up_in_docker(Path.cwd()) else _embedded()
    before, begun_s = _sample(parts), time.monotonic()
    time.sleep(seconds)
    _print(before, _sample(parts), time.monotonic() - begun_s)


def _embedded() -> dict[str, Part]:
    project = find_project()
    try:
        record = json.loads(project.state_file.read_bytes())
    except FileNotFoundError:
        raise SettingsError(f"No project is up in {project.folder}; start it with `bonseyes up --detach`.") from None
    parts = {entry["name"]: _part(entry["pid"]) for entry in record["services"]}
    of_services = {process for part in parts.values() for process in part.processes}
    rest = (process for process in _part(record["pid"]).processes if process not in of_services)
    return {**parts, "supervisor": Part(tuple(rest))}


def _in_docker() -> dict[str, Part]:
    found = DockerProject(Path.cwd()).containers()
    parts = {
        each.service: _part(int(each.raw["State"]["Pid"]), str(each.raw["Id"])) for each in found if not each.is_done
    }
    engine = (process for process in psutil.process_iter(["name"]) if process.info["name"] in ENGINE)
    return {**parts, "the engine": Part(tuple(engine))}


def _part(pid: int, container: str | None = None) -> Part:
    process = psutil.Process(pid)
    return Part((process, *process.children(recursive=True)), container)


def _sample(parts: Mapping[str, Part]) -> Sample:
    return {name: (part.wake_ups(), part.processor_s()) for name, part in parts.items()}


def _wake_ups(pid: int) -> int:
    total = 0
    for thread in Path(f"/proc/{pid}/task").glob("*/status"):
        with suppress(OSError):  # the thread has ended
            total += int(_SWITCHES.findall(thread.read_text())[0])
    return total


def _print(before: Sample, after: Sample, seconds: float) -> None:
    print(f"{len(before)} parts, {seconds:.0f} s, load {os.getloadavg()[0]:.1f} at the end:\n")
    print("| service | wake-ups a second | processor, % of one core |\n|---|---:|---:|")
    rates = {
        name: [(new - old) / seconds for old, new in zip(before[name], after[name], strict=True)] for name in before
    }
    rates["all"] = [sum(column) for column in zip(*rates.values(), strict=True)]
    for name, (wake_ups, share) in rates.items():
        print(f"| {name} | {wake_ups:.1f} | {share * 100:.2f} |")


if __name__ == "__main__":
    main()
