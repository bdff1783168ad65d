"""Runs of five steps in a whole project whose processes are killed in turn: all complete, nothing is made twice."""

from __future__ import annotations

import json
import random
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from dagster import DagsterInstance

from bonseyes_dagster.client import Artifact, Container, Project
from bonseyes_dagster.errors import BonseyesError
from tests.crash.executions import container_of, executions, unexplained
from tests.crash.scale import RUN_KILLS, seeded
from tests.crash.victims import PIPELINE, RUN, TOOLS, TURNS, Kill, Victims
from tests.system.embedded import Embedded, embedded
from tests.waiting import until

FIVE = Path(__file__).parent / "five"
STEPS = ("source_left", "source_right", "combine", "refine", "judge")
# Fewer than would end a run that gets no further (run_recovery.py).
_KILLS_PER_RUN = 9
_LONGEST_PAUSE_S = 2.0
_LOOK_S = 0.1
_RUN_S = 300.0
_OWNERLESS_S = 30.0


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Embedded]:
    """The pipeline of five steps, up."""
    with embedded(tmp_path / "project", with_dagster=True, source=FIVE) as project:
        project.up()
        yield project


class Campaign:
    """One run after another, with kills in between."""

    def __init__(self, project: Embedded, random_: random.Random) -> None:
        self._project = project
        self._random = random_
        self._victims = Victims(project)
        self._turns = list(self._all_turns())
        self.kills: list[Kill] = []
        self.durations_s: dict[str, float] = {}
        self.disturbed: set[str] = set()
        self.wrong: list[str] = []

    @property
    def runs(self) -> Container:
        """Return the pipeline's container."""
        return Project(self._project.url).container(PIPELINE, "runs")

    def tool(self, name: str) -> Container:
        """Return a tool's container."""
        return Project(self._project.url).container(name)

    def _all_turns(self) -> Iterator[tuple[str, ...]]:
        left = RUN_KILLS
        while left > 0:
            for turn in self._random.sample(TURNS, len(TURNS)):
                if left > 0:
                    yield turn
                left -= len(turn)

    def execute(self) -> None:
        """Run, undisturbed once, until everybody has been killed in his turn."""
        self._one_run("calm", 0)
        number = 0
        while self._turns:
            number += 1
            self._one_run(f"run{number}", _KILLS_PER_RUN)

    def _one_run(self, name: str, kills: int) -> None:
        until(lambda: self._is_created(name), _RUN_S)
        run, begun = self.runs.artifact(name), time.monotonic()
        next_at = begun + self._random.uniform(0, _LONGEST_PAUSE_S)
        while not self._is_final(run):
            if time.monotonic() - begun > _RUN_S:
                self.wrong.append(f"{name} has not ended in {_RUN_S:.0f} s: {_told(run.status)}")
                break
            if kills > 0 and self._turns and time.monotonic() >= next_at and self._kill(name):
                kills -= 1
                next_at = time.monotonic() + self._random.uniform(0, _LONGEST_PAUSE_S)
            self._look_for_successors()
            time.sleep(_LOOK_S)
        self.durations_s[name] = time.monotonic() - begun
        self._judge(name, run)

    def _is_created(self, name: str) -> bool:
        with suppress(BonseyesError):
            self.runs.create(name, {"left": f"l-{name}", "right": f"r-{name}"}, idempotency_key=name)
            return True
        return False

    def _is_final(self, run: Artifact) -> bool:
        with suppress(BonseyesError):
            return run.status().is_final
        return False

    def _kill(self, name: str) -> bool:
        kills = self._victims.kill(self._turns[0], name)
        if not kills:
            return False
        self._turns.pop(0)
        self.kills += kills
        self.disturbed.add(name)
        return True

    def _look_for_successors(self) -> None:
        for kill in self.kills:
            if kill.back_s is None and not kill.role.endswith(" child"):
                pid = self._victims.pid(kill.role)
                if pid is not None and pid != kill.pid:
                    kill.back_s = time.time() - kill.at

    def _judge(self, name: str, run: Artifact) -> None:
        until(lambda: self._can_tell(run), _RUN_S)
        status = run.status()
        if status.phase != "completed" or {step.phase for step in status.steps or ()} != {"completed"}:
            killed = [kill.role for kill in self.kills if kill.run == name]
            self.wrong.append(f"{name} after {killed}: {status}")
            return
        text = json.loads(run.read("judge/report.json"))["text"]
        if text != f"((l-{name} r-{name}))":
            self.wrong.append(f"{name} ended with {text!r}")

    def _can_tell(self, run: Artifact) -> bool:
        """Wait for everybody whom the answer to a question depends on."""
        return self._is_final(run) and all(self._is_healthy(tool) for tool in TOOLS)

    def _is_healthy(self, tool: str) -> bool:
        with suppress(BonseyesError):
            return self.tool(tool).is_healthy()
        return False

    def artifacts(self) -> list[str]:
        """Return the artifacts that there are to be, of every run one for each step."""
        return [f"{run}_{step}" for run in self.durations_s for step in STEPS]

    def moments(self) -> dict[str, list[float]]:
        """Return when something was killed that ended the work of a container."""
        return {tool: [kill.at for kill in self.kills if kill.container == tool and kill.interrupts] for tool in TOOLS}


def _told(ask: Callable[[], object]) -> object:
    try:
        return ask()
    except BonseyesError as error:
        return error


@pytest.mark.timeout(0)
def test_runs_survive_kills(project: Embedded) -> None:
    """Each run ends completed, each artifact was made once unless that was cut short, and nothing works for nobody."""
    campaign = Campaign(project, seeded())
    campaign.execute()
    ended = time.time()
    with suppress(AssertionError):
        until(lambda: not list(ownerless(project, campaign)), _OWNERLESS_S)
    report(campaign)
    found = [*campaign.wrong, *ownerless(project, campaign), *wrong_artifacts(campaign)]
    done = executions(project.folder)
    found += unexplained(done, campaign.moments(), campaign.artifacts())
    found += [f"{each.artifact} was made after the end" for each in done if each.begun > ended]
    assert not found, "\n".join([*found, project.logs()])


def ownerless(project: Embedded, campaign: Campaign) -> Iterator[str]:
    """Yield what still runs though every run has ended."""
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
    """Yield artifacts that are missing, not completed, or nobody's."""
    for tool in TOOLS:
        expected = {name for name in campaign.artifacts() if container_of(name) == tool}
        there = {status.name: status for status in campaign.tool(tool).statuses()}
        if there.keys() != expected:
            yield f"{tool} has {there.keys() - expected} and has not {expected - there.keys()}"
        for status in there.values():
            if status.phase != "completed" or status.reused_from:
                yield f"{tool}/{status.name}: {status}"


def report(campaign: Campaign) -> None:
    """Say what this was."""
    calm_s = campaign.durations_s["calm"]
    delays_s = sorted(campaign.durations_s[name] - calm_s for name in campaign.disturbed) or [0.0]
    killed = Counter(kill.role for kill in campaign.kills)
    print(f"{killed.total()} kills {dict(killed)} in {len(campaign.disturbed)} runs; {len(campaign.wrong)} wrong")
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
