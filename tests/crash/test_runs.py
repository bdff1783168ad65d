"""Runs of five steps, launched in each way, in a project whose processes are killed: no artifact is made twice."""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
from dagster import DagsterInstance

from bonseyes_dagster.client import Artifact, Container, Project
from bonseyes_dagster.errors import BonseyesError
from tests.crash.executions import container_of, executions, unexplained
from tests.crash.launch_ways import EXECUTE, RUNS, WAYS, LaunchWays
from tests.crash.run_events import doubled
from tests.crash.scale import RUN_KILLS, seeded
from tests.crash.victims import KILL_GROUPS, PIPELINE, RUN, TOOLS, Kill, Victims
from tests.system.embedded import Embedded
from tests.waiting import until

pytestmark = pytest.mark.slow

STEPS = ("source_left", "source_right", "combine", "refine", "judge")
# Fewer than the limit at which run_recovery.py gives a run up.
_KILLS_PER_RUN = 9
# A process that executes a run must outlive some checks of Dagster's daemon, one each 5 s.
_KILLS_PER_EXECUTION = 4
_EXECUTION_SECONDS = 3.0
_LONGEST_PAUSE_S = 2.0
_LOOK_S = 0.1
_RUN_S = 300.0
# The run server keeps the record of an ended run for 60 s, and checks every 15 s.
_STILL_ACTIVE_S = 90.0


class Campaign:
    """Runs one after another, with kills meanwhile."""

    def __init__(self, project: Embedded, random_: random.Random) -> None:
        self._project = project
        self._random = random_
        self._victims = Victims(project)
        self._ways = LaunchWays(project)
        self._kill_groups = list(self._all_kill_groups())
        self.kills: list[Kill] = []
        self.durations_s: dict[str, float] = {}
        self.disturbed: set[str] = set()
        self.interrupted_runs: set[str] = set()
        """Runs whose `dagster job execute` was killed: no process resumes them."""
        self.ways: dict[str, str] = {}
        self.wrong: list[str] = []
        self.earlier = {status.name for tool in TOOLS for status in self.tool(tool).statuses()}
        """Artifacts from before the campaign."""

    @property
    def runs(self) -> Container:
        """Return the pipeline's container."""
        return Project(self._project.url).container(PIPELINE, "runs")

    def tool(self, name: str) -> Container:
        """Return a tool's container."""
        return Project(self._project.url).container(name)

    def _all_kill_groups(self) -> Iterator[tuple[str, ...]]:
        left = RUN_KILLS
        while left > 0:
            for group in self._random.sample(KILL_GROUPS, len(KILL_GROUPS)):
                if left > 0:
                    yield group
                left -= len(group)

    def execute(self) -> None:
        """Run once undisturbed, then run until every group of processes has been killed."""
        try:
            self._one_run("calm", RUNS, 0)
            number = 0
            while self._kill_groups:
                way = WAYS[number % len(WAYS)]
                number += 1
                self._one_run(f"run{number}", way, _KILLS_PER_EXECUTION if way == EXECUTE else _KILLS_PER_RUN)
        finally:
            self._ways.end()

    def _one_run(self, name: str, way: str, kills: int) -> None:
        self.ways[name] = way
        more = {"seconds": _EXECUTION_SECONDS} if way == EXECUTE else {}
        self._ways.launch(way, name, {"left": f"l-{name}", "right": f"r-{name}", **more})
        executing = self._ways.executing if way == EXECUTE else None
        self._victims.executing = executing.pid if executing else None
        run, begun = self.runs.artifact(name), time.monotonic()
        next_at = begun + self._random.uniform(0, _LONGEST_PAUSE_S)
        while not self._is_final(run):
            if time.monotonic() - begun > _RUN_S:
                self.wrong.append(f"{name} has not ended in {_RUN_S:.0f} s: {_answer_or_error(run.status)}")
                break
            if kills > 0 and self._kill_groups and time.monotonic() >= next_at and self._kill(name):
                kills -= 1
                next_at = time.monotonic() + self._random.uniform(0, _LONGEST_PAUSE_S)
            self._look_for_successors()
            time.sleep(_LOOK_S)
        self.durations_s[name] = time.monotonic() - begun
        if executing is not None:
            self._wait_for(executing, name)
        self._check_result(name, run)

    def _wait_for(self, executing: subprocess.Popen[bytes], name: str) -> None:
        self._victims.executing = None
        try:
            executing.wait(_RUN_S)
        except subprocess.TimeoutExpired:
            self.wrong.append(f"{name} has ended, and `dagster job execute` has not")
        if any(kill.run == name and kill.role == RUN for kill in self.kills):
            self.interrupted_runs.add(name)

    def _is_final(self, run: Artifact) -> bool:
        with suppress(BonseyesError):
            return run.status().is_final
        return False

    def _kill(self, name: str) -> bool:
        kills = self._victims.kill(self._kill_groups[0], name)
        if not kills:
            return False
        self._kill_groups.pop(0)
        self.kills += kills
        self.disturbed.add(name)
        return True

    def _look_for_successors(self) -> None:
        for kill in self.kills:
            if kill.back_s is None and not kill.role.endswith(" child"):
                pid = self._victims.pid(kill.role)
                if pid is not None and pid != kill.pid:
                    kill.back_s = time.time() - kill.at

    def _check_result(self, name: str, run: Artifact) -> None:
        until(lambda: self._is_settled(run), _RUN_S)
        status = run.status()
        if name in self.interrupted_runs:
            if status.phase not in ("failed", "completed"):
                self.wrong.append(f"{name} was cut short by a kill, and is {status}")
            return
        if status.phase != "completed" or {step.phase for step in status.steps or ()} != {"completed"}:
            killed = [kill.role for kill in self.kills if kill.run == name]
            self.wrong.append(f"{name}, launched by {self.ways[name]}, after {killed}: {status}")
            return
        text = json.loads(run.read("judge/report.json"))["text"]
        if text != f"((l-{name} r-{name}))":
            self.wrong.append(f"{name} ended with {text!r}")

    def _is_settled(self, run: Artifact) -> bool:
        """Tell whether the run is final and all tools are healthy, so that answers are final, too."""
        return self._is_final(run) and all(self._is_healthy(tool) for tool in TOOLS)

    def _is_healthy(self, tool: str) -> bool:
        with suppress(BonseyesError):
            return self.tool(tool).is_healthy()
        return False

    def artifacts(self) -> list[str]:
        """Return the expected artifacts: one per step of every run."""
        return [f"{run}_{step}" for run in self.durations_s if run not in self.interrupted_runs for step in STEPS]

    def most_starts(self) -> dict[str, int]:
        """Return how often each run may start a step: the process that resumes a killed run restarts its open steps."""
        killed = Counter(kill.run for kill in self.kills if kill.role == RUN)
        # No process resumes a run of `dagster job execute`.
        return {run: 1 if way == EXECUTE else 1 + killed[run] for run, way in self.ways.items()}

    def may_be_incomplete(self, artifact: str) -> bool:
        """Tell whether an artifact belongs to an interrupted run, so that it may be missing."""
        return artifact.rpartition("_")[0].removesuffix("_source") in self.interrupted_runs

    def moments(self) -> dict[str, list[float]]:
        """Return the times of kills that interrupted the work of a container."""
        return {tool: [kill.at for kill in self.kills if kill.container == tool and kill.interrupts] for tool in TOOLS}


def _answer_or_error(ask: Callable[[], object]) -> object:
    try:
        return ask()
    except BonseyesError as error:
        return error


@pytest.mark.timeout(0)
def test_runs_survive_kills(five: Embedded) -> None:
    """Each run is completed, each artifact was made once unless it was interrupted, and no process is left."""
    campaign = Campaign(five, seeded())
    campaign.execute()
    ended = time.time()
    with suppress(AssertionError):
        until(lambda: not list(still_active(five, campaign)), _STILL_ACTIVE_S)
    report(campaign)
    found = [*campaign.wrong, *still_active(five, campaign), *wrong_artifacts(campaign)]
    with DagsterInstance.from_config(str(five.project.dagster_home)) as instance:
        found += doubled(instance, campaign.most_starts(), campaign.interrupted_runs)
    done = [each for each in executions(five.folder) if each.artifact not in campaign.earlier]
    incomplete = {each.artifact for each in done if campaign.may_be_incomplete(each.artifact)}
    found += unexplained(done, campaign.moments(), [*campaign.artifacts(), *incomplete])
    found += [f"{each.artifact} was made after the end" for each in done if each.begun > ended]
    assert not found, "\n".join([*found, five.logs()])


def still_active(project: Embedded, campaign: Campaign) -> Iterator[str]:
    """Yield processes, runs and artifacts that are still active after the end of every run."""
    victims = Victims(project)
    for pid in victims.run_processes():
        yield f"the process {pid} executes a run"
    if victims.runs():
        yield "there are records of runs"
    with DagsterInstance.from_config(str(project.project.dagster_home)) as instance:
        for run in instance.get_runs():
            if not run.is_finished:
                yield f"Dagster's run {run.run_id} is {run.status}"
    for tool in TOOLS:
        for status in campaign.tool(tool).statuses():
            if not status.is_final:
                yield f"{tool}/{status.name} is {status.phase}"


def wrong_artifacts(campaign: Campaign) -> Iterator[str]:
    """Yield artifacts that are missing, not completed, or unexpected."""
    for tool in TOOLS:
        expected = {name for name in campaign.artifacts() if container_of(name) == tool}
        there = {
            status.name: status for status in campaign.tool(tool).statuses() if not _is_free(status.name, campaign)
        }
        if there.keys() != expected:
            yield f"{tool} has {there.keys() - expected} and has not {expected - there.keys()}"
        for status in there.values():
            if status.phase != "completed" or status.reused_from:
                yield f"{tool}/{status.name}: {status}"


def _is_free(artifact: str, campaign: Campaign) -> bool:
    """Tell whether there is no promise about an artifact."""
    return artifact in campaign.earlier or campaign.may_be_incomplete(artifact)


def report(campaign: Campaign) -> None:
    """Print the numbers of the campaign."""
    calm_s = campaign.durations_s["calm"]
    delays_s = sorted(campaign.durations_s[name] - calm_s for name in campaign.disturbed) or [0.0]
    killed = Counter(kill.role for kill in campaign.kills)
    print(f"{killed.total()} kills {dict(killed)} in {len(campaign.disturbed)} runs; {len(campaign.wrong)} wrong")
    print(f"launched by {dict(Counter(campaign.ways.values()))}; {len(campaign.interrupted_runs)} commands killed")
    print(
        f"a run takes {calm_s:.1f} s; disturbed, {statistics.median(delays_s):.1f} s more, {delays_s[-1]:.1f} s at most"
    )
    for name in sorted(campaign.disturbed, key=lambda name: -campaign.durations_s[name])[:5]:
        kills = [f"{kill.role} ({kill.back_s or 0:.1f} s)" for kill in campaign.kills if kill.run == name]
        print(f"{name}: {campaign.durations_s[name]:.1f} s with {', '.join(kills)}")
    for what, is_it in (("runs' processes", lambda role: role == RUN), ("others", lambda role: role != RUN)):
        back_s = [kill.back_s for kill in campaign.kills if kill.back_s is not None and is_it(kill.role)]
        if back_s:
            print(f"{what} were back after {statistics.median(back_s):.1f} s, {max(back_s):.1f} s at most")
