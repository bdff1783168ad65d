"""Runs of some steps, and re-executions of some of their steps with other parameters: each shows the right results."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from bonseyes_dagster.client import Artifact, Project
from bonseyes_dagster.errors import NotFoundError
from bonseyes_dagster.model import Status
from tests.crash.executions import container_of
from tests.crash.graphql import launch, reexecute
from tests.crash.lineage import STEPS, Made, ModelRun, upstream
from tests.crash.scale import REEXECUTIONS, seeded
from tests.crash.victims import PIPELINE
from tests.system.embedded import Embedded

pytestmark = pytest.mark.slow

_MOST_WRONG = 20
_MOST_PARENTS = 12
_RUN_S = 300.0


class Campaign:
    """Runs one after another; each is compared with the model."""

    def __init__(self, project: Embedded, random_: random.Random) -> None:
        self._project = project
        self._random = random_
        self._runs: list[ModelRun] = []
        self._number = 0
        self.done: Counter[str] = Counter()

    def execute_one(self) -> Iterator[str]:
        """Launch a random run; yield the faults of its results."""
        parents = self._runs[-_MOST_PARENTS:]
        if not parents:
            run = self._whole()
        else:
            [act] = self._random.choices([self._whole, self._part, self._again], [1, 1, 6])
            run = act()
        self._runs.append(run)
        # The results of the parent must not change.
        for each in {run.name: run, **({run.parent.name: run.parent} if run.parent else {})}.values():
            for wrong in self._look(each):
                yield f"{_shown_run(run)}: {each.name}: {wrong}"

    def _whole(self) -> ModelRun:
        self.done["whole"] += 1
        name, left, right = self._name(), self._text(), self._text()
        config = {"left": left, "right": right, "seconds": 0}
        run = self._container().create(name, config)
        return ModelRun(name, str(run.status().run_id), frozenset(STEPS), left, right)

    def _part(self) -> ModelRun:
        """Run some steps with all their inputs."""
        self.done["part"] += 1
        name, left, right = self._name(), self._text(), self._text()
        last = self._random.sample(STEPS[:4], self._random.choice([1, 1, 2]))
        steps = frozenset({*last, *(each for step in last for each in upstream(step))})
        config = {"left": left, "right": right, "seconds": 0}
        run_id = launch(self._project, name, config, sorted(steps))
        return ModelRun(name, run_id, steps, left, right)

    def _again(self) -> ModelRun:
        """Execute steps of an earlier run again, in most cases with another parameter."""
        self.done["again"] += 1
        name, parent = self._name(), self._random.choice(self._runs[-_MOST_PARENTS:])
        left = self._random.choice([parent.left, self._text()])
        right = self._random.choice([parent.right, self._text()])
        steps = self._some_steps(parent)
        config = {"left": left, "right": right, "seconds": 0}
        ids = {"parent": parent.run_id, "root": parent.root.run_id}
        run_id = reexecute(self._project, name, config, sorted(steps), **ids)
        return ModelRun(name, run_id, steps, left, right, parent)

    def _some_steps(self, parent: ModelRun) -> frozenset[str]:
        while True:
            steps = frozenset(self._random.sample(STEPS, self._random.choice([1, 1, 2, 3, 4])))
            if parent.is_possible(steps):
                return steps

    def _name(self) -> str:
        self._number += 1
        return f"again{self._number}"

    def _text(self) -> str:
        self._number += 1
        return f"t{self._number}" + "x" * self._random.randrange(8)

    def _container(self) -> Any:
        return Project(self._project.url).container(PIPELINE, "runs")

    # Looking

    def _look(self, run: ModelRun) -> Iterator[str]:
        found: Artifact = self._container().artifact(run.name)
        status = found.wait(_RUN_S)
        if status.phase != "completed":
            yield f"it is {status.phase}: {status.reason}"
            return
        record = json.loads(found.read("run.json"))
        shown = {step: run.shown(step) for step in STEPS}
        yield from _wrong_steps(status, shown)
        yield from self._wrong_record(record, shown)
        yield from _wrong_report(found, shown["judge"])

    def _wrong_record(self, record: dict[str, Any], shown: dict[str, Made | None]) -> Iterator[str]:
        for step in record["steps"]:
            made, artifact = shown.get(step["name"]), step["artifact"]
            if made is None:
                if step["phase"] != "not-selected" or (artifact or {}).get("digest"):
                    yield f"run.json calls {step['name']} {step['phase']} with {artifact}; it is not selected"
                continue
            digest, text = self._artifact(made.artifact)
            if text != made.text:
                yield f"{made.artifact} holds {text!r} and must hold {made.text!r}"
            if (step["phase"], artifact["name"], artifact["digest"]) != ("completed", made.artifact, digest):
                yield f"run.json says {step['phase']} {artifact} of {step['name']}, which is {made.artifact} {digest}"

    def _artifact(self, name: str) -> tuple[str | None, str]:
        artifact = Project(self._project.url).container(container_of(name)).artifact(name)
        if name.endswith("_judge"):
            return artifact.status().digest, str(json.loads(artifact.read("report.json"))["text"])
        return artifact.status().digest, artifact.read("text").decode()


def _wrong_steps(status: Status, shown: dict[str, Made | None]) -> Iterator[str]:
    steps = {step.name: step for step in status.steps or ()}
    for name, made in shown.items():
        wanted = "completed" if made else "not-selected"
        if name not in steps or steps[name].phase != wanted:
            yield f"the status calls {name} {steps[name].phase if name in steps else 'nothing'}; it is {wanted}"
        elif made and steps[name].artifact != made.artifact:
            yield f"the status has {steps[name].artifact} for {name}, which is {made.artifact}"
    progress = status.progress
    if progress is None or progress.done != progress.total:
        yield f"it is completed and its progress is {progress}"


def _wrong_report(run: Artifact, made: Made | None) -> Iterator[str]:
    try:
        text = json.loads(run.read("judge/report.json"))["text"]
    except NotFoundError:
        text = None
    if text != (made.text if made else None):
        yield f"its report is of {text!r}, and must be of {made.text if made else None!r}"
    metrics = [metric for metric in run.metrics() if metric.endswith(".length")]
    values = [run.metric(metric)[0][-1].value for metric in metrics]
    if values != ([float(len(made.text))] if made else []):
        yield f"its metrics say {dict(zip(metrics, values, strict=True))} of {made}"


def _shown_run(run: ModelRun) -> str:
    parent = f" of {run.parent.name}" if run.parent else ""
    return f"after {run.name}{parent} executed {sorted(run.executed)} with {run.left} {run.right}"


@pytest.mark.timeout(0)
def test_run_shows_the_right_results_after_random_reexecutions(five: Embedded) -> None:
    """A run shows its own results, and a parent's result if no step before it was made anew."""
    campaign, began = Campaign(five, seeded()), time.monotonic()
    wrong: list[str] = []
    for _ in range(REEXECUTIONS):
        wrong += campaign.execute_one()
        if len(wrong) >= _MOST_WRONG:
            break
    print(f"{campaign.done.total()} runs {dict(campaign.done)}; {len(wrong)} wrong; {time.monotonic() - began:.0f} s")
    assert not wrong, "\n".join(wrong[:_MOST_WRONG])
