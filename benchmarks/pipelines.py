"""What a pipeline's run costs from `POST /runs` to completed, in a whole project whose tools do nothing.

Everything is real: `bonseyes up`, twenty tool containers, the gateway. The rival asks the same containers for the same
artifacts by the same ops, on an instance of Dagster's with nothing but its defaults: DefaultRunLauncher and the
multiprocess executor. Both are counted with all processes that take part.
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
from benchmarks.service import scratch
from benchmarks.timing import cpu_s_of
from benchmarks.up import Up
from tests.launching_project import LaunchingProject

HERE = Path(__file__).parent / "twenty"
BOXES = 20
CHAIN = 7
REPEAT, STOCK_REPEAT = 9, 2
# The clock of processor times has 100 ticks a second, and what ends is only then added to its parent.
SETTLE_S = 1.0


@dataclass(frozen=True)
class Cost:
    """What a run took."""

    wall_s: float
    cpu_s: float


class Twenty:
    """The project, up."""

    def __init__(self, up: Up) -> None:
        self._up = up
        self._numbers = count()

    def run(self, pipeline: str) -> float:
        """Run once through the gateway; return the seconds from POST to completed."""
        container = self._up.container(pipeline)
        begun = time.perf_counter()
        status = container.create(f"{pipeline}-{next(self._numbers)}", reuse=False).wait(timeout_s=120)
        if status.phase != "completed":
            raise SystemExit(f"a run of {pipeline} was {status.phase}: {status.reason}")
        return time.perf_counter() - begun

    def cost(self, services: Collection[str], action: Callable[[], float]) -> Cost:
        """Return what an action takes, with the processor time of those services and of this process."""
        processes = [self._up.process(name) for name in services]
        before = _cpu_s(processes)
        wall_s = action()
        time.sleep(SETTLE_S)
        return Cost(wall_s, _cpu_s(processes) - before)

    def code_port(self) -> int:
        """Return where the code server listens."""
        workspace = yaml.safe_load((self._up.folder / ".bonseyes/dagster/workspace.yaml").read_text())
        return int(workspace["load_from"][0]["grpc_server"]["port"])


def _cpu_s(processes: Collection[psutil.Process]) -> float:
    """Return the processor time of this process, of others, of what is below those, and of what ended there."""
    own = time.process_time()
    family = {p.pid: p for process in processes for p in [process, *process.children(recursive=True)]}
    return own + sum(cpu_s_of(process) for process in family.values())


@contextmanager
def twenty(folder: Path) -> Iterator[Twenty]:
    """Make the project in `folder` and bring it up."""
    project = folder / "twenty"
    for number in range(BOXES):
        shutil.copytree(HERE / "box", project / f"containers/box-{number:02d}")
    shutil.copy(HERE / "definitions.py", project)
    with Up(project) as up:
        yield Twenty(up)


@contextmanager
def stock(folder: Path, port: int) -> Iterator[LaunchingProject]:
    """Yield an instance of Dagster's with its defaults, on the project's code server."""
    home = folder / "home"
    home.mkdir(parents=True)
    # Launched directly: the default coordinator would have it wait for the next tick of a daemon.
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
        raise SystemExit(f"the stock run ended {status}")
    return time.perf_counter() - begun


def _chain(project: Twenty, folder: Path) -> list[Figure]:
    boxes = [f"box-{number:02d}" for number in range(CHAIN)]
    ours = ["gateway", "chain", "run-server", "code-server", *boxes]
    project.run("chain")  # what only the first run has to do
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


def _at_once(project: Twenty) -> list[Figure]:
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
    """Bring the project up once; ours several times, Dagster's own twice."""
    with scratch() as folder, twenty(folder) as project:
        return [*_chain(project, folder), *_at_once(project)]
