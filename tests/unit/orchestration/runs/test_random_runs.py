"""Random runs, selections and re-executions of random graphs: each run shows what it made or rightly took over.

`BONSEYES_RANDOM_RUNS` is the number of runs, `BONSEYES_SEED` the beginning of another series.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from dagster import DagsterError, DagsterInstance, ReexecutionOptions, execute_job
from dagster._core.definitions.reconstruct import ReconstructableRepository
from dagster_shared.check import CheckError

from bonseyes_dagster.client import Addresses
from bonseyes_dagster.execution.storage.instance import write_instance
from bonseyes_dagster.model import NOT_SELECTED
from bonseyes_dagster.orchestration.runs.container_requests import ContainerRequests
from bonseyes_dagster.orchestration.runs.records import Records
from bonseyes_dagster.orchestration.runs.states import States
from bonseyes_dagster.pipeline.provenance import provenance_of
from tests.unit.orchestration.runs.random_graph import TOOL, make_pipeline
from tests.unit.orchestration.tools import write_tools

RUNS = int(os.environ.get("BONSEYES_RANDOM_RUNS", "24"))
SEED = int(os.environ.get("BONSEYES_SEED", "1"))
RUNS_OF_A_GRAPH = 8
pytestmark = pytest.mark.timeout(60 + 5 * RUNS)


@dataclass
class ModelRun:
    """A run as the model knows it: what it was asked to execute, by Dagster's keys, and its parent."""

    parent: ModelRun | None
    asked: set[str]
    made: dict[str, str] = field(default_factory=dict)


class Model:
    """What each run must show, from the graph as the test has drawn it and from what the ops themselves noted."""

    def __init__(self, graph: dict[str, list[str]]) -> None:
        self.graph = graph

    def shown(self, run: ModelRun) -> dict[str, str]:
        """Return the digest of each step that is to be shown as completed."""
        shown = dict(run.made)
        for key, digest in (self.shown(run.parent) if run.parent else {}).items():
            if not self.is_asked(run, key) and not self._is_stale(run, key):
                shown[key] = digest
        return shown

    def is_asked(self, run: ModelRun, key: str) -> bool:
        """Tell whether a run was asked to execute a step."""
        step, _, rest = key.partition("[")
        if rest in ("", "?]"):
            return any(each.partition("[")[0] == step for each in run.asked)
        return not {step, f"{step}[?]", key}.isdisjoint(run.asked)

    def _is_stale(self, run: ModelRun, key: str) -> bool:
        step, _, rest = key.partition("[")
        for source in self.graph[step]:
            # Mapped steps depend on those with their own key, what collects them on all.
            upstream = f"{source}[{rest}" if rest and self.is_mapped(source) else source
            if self.is_asked(run, upstream) or self._is_stale(run, upstream):
                return True
        return False

    def is_mapped(self, step: str) -> bool:
        """Tell whether there is one of a step for each thing that `find` finds."""
        return step not in ("find", "merge") and any(
            source == "find" or self.is_mapped(source) for source in self.graph[step]
        )


class Campaign:
    """One random graph in a folder of its own, and runs of it."""

    def __init__(self, folder: Path, instance: DagsterInstance, chance: random.Random) -> None:
        self.folder, self.instance, self.chance = folder, instance, chance
        write_tools(folder, noted=TOOL)
        self.graph = draw_graph(chance)
        (folder / "graph.json").write_text(json.dumps(self.graph))
        file = folder / "definitions.py"
        file.write_text(
            "from pathlib import Path\nfrom tests.unit.orchestration.runs.random_graph import make_definitions\n"
            f"defs = make_definitions(Path({str(folder)!r}))\n"
        )
        self.job = ReconstructableRepository.for_file(str(file), "defs", str(folder)).get_reconstructable_job("random")
        self.model = Model(self.graph)
        self.runs: dict[str, ModelRun] = {}
        pipeline = make_pipeline(folder)
        self.steps = [step.name for step in pipeline.steps]
        self.states = States(Records(instance, pipeline), pipeline, ContainerRequests(Addresses()), "http://gateway")

    def run(self) -> None:
        """Execute one random run, if Dagster takes it."""
        chance = self.chance
        keys = chance.sample("abcd", chance.randint(1, 3))
        failing = [step for step in self.graph if chance.random() < 0.1]
        failing += [f"{step}[{key}]" for step in self.graph for key in keys if chance.random() < 0.05]
        (self.folder / "keys.json").write_text(json.dumps(keys))
        (self.folder / "fail.json").write_text(json.dumps(failing))
        parent_id = chance.choice(list(self.runs)) if self.runs and chance.random() < 0.75 else None
        try:
            self._execute_again(parent_id) if parent_id else self._execute()
        except (DagsterError, CheckError, KeyError):  # nothing has failed, there is nothing to load an input from
            return

    def _execute(self) -> None:
        job, config = self.job, None
        asked = {f"{step}[?]" if self.model.is_mapped(step) else step for step in self.graph}
        if self.chance.random() < 0.4:
            selected = self.chance.sample(list(self.graph), self.chance.randint(1, len(self.graph)))
            job = job.get_subset(op_selection=selected)
            fields = job.get_definition().config_mapping.config_schema.config_type.fields
            config = dict.fromkeys(fields, "noted/given")
            asked = {key for key in asked if key.partition("[")[0] in selected}
        with execute_job(job, self.instance, run_config=config) as result:
            self._note(result.run_id, None, asked)

    def _execute_again(self, parent_id: str) -> None:
        parent = self.runs[parent_id]
        if self.chance.random() < 0.4:
            options = ReexecutionOptions.from_failure(parent_id, self.instance)
        else:
            known = sorted({*parent.asked, *self.model.shown(parent)})
            options = ReexecutionOptions(
                parent_id, self.chance.sample(known, self.chance.randint(1, min(3, len(known))))
            )
        with execute_job(self.job, self.instance, reexecution_options=options) as result:
            # Which steps "from failure" means is for Dagster to say.
            self._note(result.run_id, parent, set(options.step_selection or result.dagster_run.step_keys_to_execute))

    def _note(self, run_id: str, parent: ModelRun | None, asked: set[str]) -> None:
        entries = [json.loads(line) for line in (self.folder / "made.jsonl").read_text().splitlines()]
        made = {each["key"]: each["digest"] for each in entries if each["run"] == run_id}
        self.runs[run_id] = ModelRun(parent, asked, made)

    def differences(self) -> Iterator[Any]:
        """Yield what a run shows that the model does not, and the other way round."""
        for run_id, run in self.runs.items():
            record = self.instance.get_run_record_by_id(run_id)
            assert record is not None
            state = self.states.read(record)
            document = provenance_of(state, {})
            shown = {
                each["name"]: each["artifact"]["digest"] for each in document["steps"] if each["phase"] == "completed"
            }
            wanted = {_name(key): digest for key, digest in self.model.shown(run).items() if _step(key) in self.steps}
            left_out = {each.name for each in state.steps if each.phase == NOT_SELECTED}
            taken = {_step(key) for key in self.model.shown(run)}
            unwanted = {step for step in self.steps if not self.model.is_asked(run, step) and step not in taken}
            for each in (self.states.status(state, is_live=False), self.states.brief(record)):
                progress = each.progress.done, each.progress.total
                if progress != (len(wanted), len(state.steps) - len(unwanted)):
                    yield run_id, self.graph, run.asked, progress
            if (shown, left_out) != (wanted, unwanted):
                yield run_id, self.graph, run.asked, shown, wanted, left_out, unwanted


def draw_graph(chance: random.Random) -> dict[str, list[str]]:
    """Draw a graph: for each node the nodes that it takes, sometimes with a part that is mapped over what is found."""
    graph: dict[str, list[str]] = {}
    for number in range(chance.randint(2, 5)):
        graph[f"step_{number}"] = chance.sample(list(graph), chance.randint(0, min(3, len(graph))))
    if chance.random() < 0.6:
        single = list(graph)
        graph["find"] = []
        graph["mapped_0"] = ["find", *chance.sample(single, chance.randint(0, 1))]
        graph["mapped_1"] = ["mapped_0", *chance.sample(single, chance.randint(0, 1))]
        graph["merge"] = [chance.choice(["mapped_0", "mapped_1"])]
        graph["last"] = ["merge", *chance.sample(single, chance.randint(0, 1))]
    return graph


def _name(key: str) -> str:
    return key.replace("[", ".").removesuffix("]")


def _step(key: str) -> str:
    return key.partition("[")[0]


def test_each_run_shows_what_it_made_or_rightly_took_over(tmp_path: Path) -> None:
    """No old artifact as the result of a new one's making, also through chains of re-executions."""
    home = tmp_path / "home"
    write_instance(home, launcher="stock")
    with pytest.MonkeyPatch.context() as patch, DagsterInstance.from_config(str(home)) as instance:
        patch.setenv("DAGSTER_HOME", str(home))
        for number in range(0, RUNS, RUNS_OF_A_GRAPH):
            folder = tmp_path / f"graph_{number}"
            folder.mkdir()
            (folder / "made.jsonl").touch()
            campaign = Campaign(folder, instance, random.Random(SEED * 1_000_003 + number))
            for _ in range(min(RUNS_OF_A_GRAPH, RUNS - number)):
                campaign.run()
            assert list(campaign.differences()) == []
