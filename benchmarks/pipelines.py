"""Measures a pipeline's run from `POST /runs` to completed, in a whole project whose tools do nothing.

Everything is real: `bonseyes up`, twenty tool containers, the gateway. The rival is a Dagster instance with Dagster's
defaults: DefaultRunLauncher and the multiprocess executor. It runs the same ops, which create the same artifacts in the
same containers. The processor time of both includes all processes that take part.
"""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path

import psutil
import yaml
from dagster import DagsterInstance, DagsterRunStatus
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import GrpcServerTarget

from benchmarks.figure import Figure, compare
from benchmarks.running_project import RunningProject
from benchmarks.service import scratch
from benchmarks.timing import cpu_s_of
from tests.launching_project import LaunchingProject

HERE = Path(__file__).parent / "twenty"
BOXES = 20
CHAIN = 7
REPEAT, STOCK_REPEAT = 9, 2
# The clock of processor times has 100 ticks a second. A parent gets the time of a child when the child ends.
SETTLE_S = 1.0


@dataclass(frozen=True)
class Cost:
    """The time of a run."""

    wall_s: float
    cpu_s: float


class TwentyTools:
    """The project with the twenty tools. It is up."""

    def __init__(self, up: RunningProject) -> None:
        self._up = up
        self._numbers = count()

    def run(self, pipeline: str) -> float:
        """Run once through the gateway. Return the seconds from POST to completed."""
        container = self._up.container(pipeline)
        begun = time.perf_counter()
        status = container.create(f"{pipeline}-{next(self._numbers)}", reuse=False).wait(timeout_s=120)
        if status.phase != "completed":
            raise SystemExit(f"A run of {pipeline} ended as {status.phase}: {status.reason}")
        return time.perf_counter() - begun

    def cost(self, services: Collection[str], action: Callable[[], float]) -> Cost:
        """Return the time of an action, with the processor time of these services and of this process."""
        processes = [self._up.process(name) for name in services]
        before = _cpu_s(processes)
        wall_s = action()
        time.sleep(SETTLE_S)
        return Cost(wall_s, _cpu_s(processes) - before)

    def code_port(self) -> int:
        """Return the port of the code server."""
        workspace = yaml.safe_load((self._up.folder / ".bonseyes/dagster/workspace.yaml").read_text())
        return int(workspace["load_from"][0]["grpc_server"]["port"])


def _cpu_s(processes: Collection[psutil.Process]) -> float:
    """Return the processor time of this process, of the others, and of all their children, also ended ones."""
    own = time.process_time()
    family = {p.pid: p for process in processes for p in [process, *process.children(recursive=True)]}
    return own + sum(cpu_s_of(process) for process in family.values())


@contextmanager
def twenty(folder: Path) -> Iterator[TwentyTools]:
    """Make the project in `folder` and start it."""
    project = folder / "twenty"
    for number in range(BOXES):
        shutil.copytree(HERE / "box", project / f"containers/box-{number:02d}")
    shutil.copy(HERE / "definitions.py", project)
    with RunningProject(project) as up:
        yield TwentyTools(up)


@contextmanager
def stock(folder: Path, port: int) -> Iterator[LaunchingProject]:
    """Yield a Dagster instance with Dagster's defaults. It uses the project's code server."""
    home = folder / "home"
    home.mkdir(parents=True)
    # The run is launched directly: with the default coordinator it waits for the next tick of a daemon.
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    target = GrpcServerTarget(host="127.0.0.1", port=port, socket=None, location_name="definitions")
    with (
        DagsterInstance.from_config(str(home)) as instance,
        WorkspaceProcessContext(instance, target) as context,
    ):
        yield LaunchingProject(folder, instance, context, HERE / "definitions.py")


def _stock_run(project: LaunchingProject) -> float:
    begun = time.perf_counter()
    status = project.wait(project.launch("chain_stock"), timeout_s=300)
    if status != DagsterRunStatus.SUCCESS:
        raise SystemExit(f"The stock run ended as {status}.")
    return time.perf_counter() - begun


def _chain(project: TwentyTools, folder: Path) -> list[Figure]:
    boxes = [f"box-{number:02d}" for number in range(CHAIN)]
    ours = ["gateway", "chain", "run-server", "code-server", *boxes]
    project.run("chain")  # the first run has extra work
    own = [project.cost(ours, partial(project.run, "chain")) for _ in range(REPEAT)]
    with stock(folder / "stock", project.code_port()) as dagster:
        theirs = [project.cost(["code-server", *boxes], partial(_stock_run, dagster)) for _ in range(STOCK_REPEAT)]
    wall, stock_wall = (statistics.median(cost.wall_s for cost in costs) for costs in (own, theirs))
    cpu, stock_cpu = (statistics.median(cost.cpu_s for cost in costs) for costs in (own, theirs))
    figure = "chain of 7 empty artifacts, POST /runs to completed"
    return [
        compare(f"{figure} (stock Dagster)", wall, stock_wall, "s", "1/30", stock_wall >= 30 * wall),
        compare(f"{figure}", wall, None, "s", "under 0.9 s", wall < 0.9),
        compare(f"{figure}, processor (stock Dagster)", cpu, stock_cpu, "s", "1/30", stock_cpu >= 30 * cpu),
    ]


def _at_once(project: TwentyTools) -> list[Figure]:
    naps = statistics.median(project.run("naps") for _ in range(5))

    def many() -> float:
        begun = time.perf_counter()
        with ThreadPoolExecutor(BOXES) as pool:
            list(pool.map(project.run, ["single"] * BOXES))
        return time.perf_counter() - begun

    one = statistics.median(project.run("single") for _ in range(5))
    twenty_s = statistics.median(many() for _ in range(3))
    return [
        compare("20 ops of 0.5 s in 20 containers (0.5 s)", naps, 0.5, "s", "under 1.5 s", naps < 1.5),
        compare("20 runs at once, POST /runs to completed (one run)", twenty_s, one, "s", "under 4 s", twenty_s < 4),
    ]


def measure() -> list[Figure]:
    """Start the project once. Run ours several times and Dagster's own twice."""
    with scratch() as folder, twenty(folder) as project:
        return [*_chain(project, folder), *_at_once(project)]
