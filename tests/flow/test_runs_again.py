"""Re-executions, partial runs, and new runs with the name of a deleted run: each shows only its own results."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from dagster import DagsterInstance
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import WorkspaceFileTarget
from dagster_graphql.schema import create_schema

from bonseyes_dagster.client import Artifact, Container
from bonseyes_dagster.errors import NotFoundError
from bonseyes_dagster.execution.storage.instance import LOCATION
from bonseyes_dagster.model import NOT_SELECTED, Status
from tests.flow.tiny_project import TinyDagster, TinyProject, running_dagster, running_tools
from tests.waiting import until

WAIT_S = 90.0
pytestmark = pytest.mark.timeout(240)

_LAUNCH = """mutation ($params: ExecutionParams!) {
  launchRun(executionParams: $params) {
    __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message }
    ... on RunConfigValidationInvalid { errors { message } }
  }
}"""
_EXECUTE_AGAIN = """mutation ($params: ReexecutionParams, $full: ExecutionParams) {
  launchRunReexecution(reexecutionParams: $params, executionParams: $full) {
    __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message }
    ... on RunConfigValidationInvalid { errors { message } }
  }
}"""
_DELETE = "mutation ($id: String!) { deletePipelineRun(runId: $id) { __typename } }"


class Page:
    """Does what Dagster's page does, through Dagster's GraphQL."""

    def __init__(self, context: WorkspaceProcessContext, pipeline: Container) -> None:
        self._context = context
        self._pipeline = pipeline
        self._schema = create_schema()
        self._selector = {
            "repositoryLocationName": LOCATION,
            "repositoryName": "__repository__",
            "pipelineName": "tiny_one",
        }

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        """Return the one answer of a query."""
        context = self._context.create_request_context()
        result = asyncio.run(self._schema.execute_async(query, variable_values=variables, context_value=context))
        assert result.errors is None, result.errors
        (answer,) = result.data.values()
        return dict(answer)

    def launch(self, config: Mapping[str, Any], ops: list[str], name: str) -> dict[str, Any]:
        """Launch selected ops."""
        return self.ask(_LAUNCH, params=self._parameters(config, {"key": "bonseyes/run", "value": name}, ops=ops))

    def execute_again(self, parent: str, steps: list[str], config: Mapping[str, Any]) -> dict[str, Any]:
        """Execute selected steps of a run again."""
        parameters = self._parameters(config, steps=steps)
        parameters["executionMetadata"] |= {"rootRunId": parent, "parentRunId": parent}
        return self.ask(_EXECUTE_AGAIN, full=parameters)

    def from_failure(self, parent: str) -> dict[str, Any]:
        """Execute a run again from the failed steps on."""
        return self.ask(_EXECUTE_AGAIN, params={"parentRunId": parent, "strategy": "FROM_FAILURE"})

    def run_of(self, answer: Mapping[str, Any]) -> Artifact:
        """Return the run that was launched."""
        assert answer["__typename"] == "LaunchRunSuccess", answer
        run_id = answer["run"]["runId"]
        statuses = {status.run_id: status.name for status in self._pipeline.statuses()}
        return self._pipeline.artifact(statuses[run_id])

    def _parameters(
        self, config: Mapping[str, Any], *tags: dict[str, str], ops: list[str] | None = None, steps: Any = None
    ) -> dict[str, Any]:
        selector = {**self._selector, **({"solidSelection": ops} if ops else {})}
        metadata = {"tags": list(tags)}
        return {
            "selector": selector,
            "runConfigData": json.dumps(config),
            "executionMetadata": metadata,
            **({"stepKeys": steps} if steps else {}),
        }


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TinyProject]:
    """The tools, running."""
    with running_tools(tmp_path_factory.mktemp("tiny")) as project:
        yield project


@pytest.fixture(scope="module")
def dagster(project: TinyProject) -> Iterator[TinyDagster]:
    """Dagster's servers, running."""
    with running_dagster(project) as dagster:
        yield dagster


@pytest.fixture(scope="module")
def pipeline(dagster: TinyDagster) -> Iterator[Container]:
    """The pipeline's container, running."""
    with dagster.serving_pipeline("tiny-one") as container:
        yield container


@pytest.fixture(scope="module")
def page(dagster: TinyDagster, pipeline: Container) -> Iterator[Page]:
    """Dagster's page."""
    with ExitStack() as stack:
        instance = stack.enter_context(DagsterInstance.from_config(str(dagster.home)))
        target = WorkspaceFileTarget([str(dagster.home / "workspace.yaml")])
        yield Page(stack.enter_context(WorkspaceProcessContext(instance, target)), pipeline)


@pytest.fixture
def launch(pipeline: Container, project: TinyProject) -> Any:
    """Return a function that runs the pipeline with two small archives and waits for the end."""

    def launch(name: str, content: bytes = b"abc", **parameters: Any) -> Artifact:
        archives = {"train": project.archive("train.bin", content), "test": project.archive("test.bin", content)}
        run = pipeline.create(name, parameters, archives)
        run.wait(WAIT_S)
        return run

    return launch


def config_of(run: Artifact, page: Page, **changes: Any) -> dict[str, Any]:
    """Return the configuration with which a run was launched, changed."""
    record = page._context.instance.get_run_by_id(run.status().run_id or "")
    assert record is not None
    return {**record.run_config, **changes}


def phases(status: Status) -> dict[str, str]:
    """Return the phase of each step."""
    return {step.name: step.phase for step in status.steps or ()}


def run_json_steps(run: Artifact) -> dict[str, dict[str, Any]]:
    """Return the entry of each step in `run.json`."""
    return {step["name"]: step for step in json.loads(run.read("run.json"))["steps"]}


def test_benchmark_of_an_old_model_is_not_inherited(launch: Any, page: Page, pipeline: Container) -> None:
    """Only `learn` is executed again. The run has no file and no metric of the old model's benchmark."""
    parent = launch("old", epochs=2)
    config = config_of(parent, page, epochs=5)
    child = page.run_of(page.execute_again(parent.status().run_id or "", ["learn"], config))
    status = child.wait(WAIT_S)
    wanted = {"load_train": "completed", "load_test": "completed", "learn": "completed", "judge": NOT_SELECTED}
    assert (status.phase, phases(status)) == ("completed", wanted)
    (listed,) = [each for each in pipeline.statuses() if each.name == child.name]
    for each in (status, listed):
        assert (each.progress.done, each.progress.total) == (3, 3)
    assert [entry.path for entry in child.manifest().files] == ["run.json"]
    assert not [metric for metric in child.metrics() if metric.startswith("judge.")]
    steps = run_json_steps(child)
    assert steps["load_train"]["inherited_from"] == {"name": "old", "run_id": parent.status().run_id}
    assert steps["learn"]["inherited_from"] is None
    assert steps["learn"]["artifact"]["parameters"]["epochs"] == 5
    assert set(steps["judge"]["artifact"].values()) == {None}
    assert not json.loads(child.read("run.json"))["complete"]

    grandchild = page.run_of(page.execute_again(status.run_id or "", ["judge"], config))
    status = grandchild.wait(WAIT_S)
    assert (status.progress.done, status.progress.total) == (4, 4)
    steps = run_json_steps(grandchild)
    assert steps["learn"]["inherited_from"]["name"] == child.name
    assert steps["judge"]["artifact"]["parameters"]["model"] == f"http://learn/artifacts/{child.name}_learn"
    assert "judge/report.json" in [entry.path for entry in grandchild.manifest().files]


def test_re_execution_from_failure_inherits_completed_steps(launch: Any, page: Page) -> None:
    """`run.json` names the run that executed them."""
    parent = launch("broken", fail="Not yet.")
    assert parent.status().phase == "failed"
    child = page.run_of(page.from_failure(parent.status().run_id or ""))
    assert phases(child.wait(WAIT_S))["load_test"] == "completed"
    assert phases(child.status())["learn"] == "failed"


def test_run_of_one_op_completes(launch: Any, page: Page, pipeline: Container, project: TinyProject) -> None:
    """It is launched from the launchpad with a given input.

    The other steps are not selected, so the progress is 1 of 1.
    """
    launch("given")
    refused = page.launch({}, ["learn"], "alone")
    assert refused["__typename"] == "RunConfigValidationInvalid"
    assert 'Missing required config entry "learn.dataset"' in refused["errors"][0]["message"]
    config = {"learn.dataset": "load/given_load_train", "epochs": 4}
    run = page.run_of(page.launch(config, ["learn"], "alone"))
    status = run.wait(WAIT_S)
    assert status.phase == "completed"
    assert {name for name, phase in phases(status).items() if phase == "completed"} == {"learn"}
    assert set(phases(status).values()) == {"completed", NOT_SELECTED}
    (listed,) = [each for each in pipeline.statuses() if each.name == run.name]
    for each in (status, listed):
        assert (each.progress.done, each.progress.total) == (1, 1)
    inputs = project.container("learn").artifact(f"{run.name}_learn").input_parameters()
    assert (inputs["dataset"], inputs["epochs"]) == ("http://load/artifacts/given_load_train", 4)
    document = json.loads(run.read("run.json"))
    assert document["inputs"] == {"learn.dataset": "load/given_load_train"}
    assert [entry.path for entry in run.manifest().files] == ["run.json"]


def test_new_run_can_have_the_name_of_a_deleted_run(launch: Any, project: TinyProject) -> None:
    """The old artifacts get other names, and the new run makes its own."""
    launch("again", b"old").delete()
    learn = project.container("learn")
    old = learn.artifact("again_learn").info()
    run = launch("again", b"new!")
    assert run.status().phase == "completed"
    new = learn.artifact("again_learn").info()
    assert new["id"] != old["id"]
    assert new["provenance"]["inputs"] != old["provenance"]["inputs"]
    spare = learn.artifact(f"again_learn.{old['id'][:8]}")
    assert spare.status().digest == old["digest"]
    log = b"".join(run.iter_log()).decode()
    assert f"http://learn/artifacts/again_learn was made by a deleted run of the same name; it is {spare.url}" in log
    assert b"Renamed from again_learn to" in b"".join(spare.iter_log())


def test_equal_work_of_a_deleted_run_is_reused(launch: Any, project: TinyProject) -> None:
    """The artifact is re-used although the new run has its name."""
    launch("same", b"equal", pause=0.01).delete()
    old = project.container("learn").artifact("same_learn").info()
    assert launch("same", b"equal", pause=0.01).status().phase == "completed"
    assert project.container("learn").artifact("same_learn").status().reused_from == f"same_learn.{old['id'][:8]}"


def test_new_run_is_not_the_parent_of_an_old_re_execution(launch: Any, page: Page) -> None:
    """It has the name and id of the deleted parent. The inherited steps are not known any more."""
    parent = launch("former", b"former", fail="Not yet.")
    config = config_of(parent, page, fail="")
    child = page.run_of(page.execute_again(parent.status().run_id or "", ["learn"], config))
    assert phases(child.wait(WAIT_S))["load_train"] == "completed"
    parent.delete()
    launch("former", b"latter!")
    assert phases(child.status())["load_train"] == NOT_SELECTED
    assert phases(child.status())["learn"] == "completed"


def test_reference_to_a_replaced_artifact_fails_the_step(launch: Any, page: Page, project: TinyProject) -> None:
    """A step refers to its input by name, and another artifact may have that name now."""
    parent = launch("swapped", b"before")
    project.container("load").artifact("swapped_load_train").delete()
    project.container("load").create("swapped_load_train", {}, {"archive": b"after!!"}).wait(WAIT_S)
    again = page.run_of(page.execute_again(parent.status().run_id or "", ["learn"], config_of(parent, page, epochs=7)))
    assert "is not the artifact that this run refers to: another artifact has that name now" in (
        again.wait(WAIT_S).reason or ""
    )


@pytest.mark.parametrize("fail", ["", "No."])
def test_artifact_made_by_hand_keeps_its_name(launch: Any, project: TinyProject, fail: str) -> None:
    """The step fails with the reason. It removes neither a completed artifact nor a failed one."""
    load, learn = project.container("load"), project.container("learn")
    source = load.create(f"hand{len(fail)}", {}, {"archive": b"mine"})
    source.wait(WAIT_S)
    mine = learn.create(f"manual{len(fail)}_learn", {"dataset": source, "fail": fail})
    before = mine.wait(WAIT_S)
    assert before.phase == ("failed" if fail else "completed")
    run = launch(f"manual{len(fail)}")
    assert f"{mine.url} exists" in (run.status().reason or "")
    assert mine.status() == before


def test_delete_returns_the_artifacts_that_stay(launch: Any, project: TinyProject) -> None:
    """It returns nothing if all are deleted."""
    kept = launch("staying").delete()
    assert sorted(kept) == [
        "http://judge/artifacts/staying_judge",
        "http://learn/artifacts/staying_learn",
        "http://load/artifacts/staying_load_test",
        "http://load/artifacts/staying_load_train",
    ]
    assert launch("staying").delete(with_artifacts=True) == []
    with pytest.raises(NotFoundError):
        project.container("learn").artifact("staying_learn").status()


@pytest.mark.parametrize("door", ["pipeline", "page", "instance"])
def test_deleting_a_run_deletes_the_output_of_its_steps(
    launch: Any, page: Page, dagster: TinyDagster, door: str
) -> None:
    """This holds for every way to delete a run."""
    run = launch(f"printed-{door}")
    run_id = run.status().run_id or ""
    logs: Path = dagster.home / "compute_logs" / run_id
    until(logs.is_dir, WAIT_S)
    assert any(path.stat().st_size for path in logs.rglob("*.out"))
    if door == "pipeline":
        run.delete()
    elif door == "page":
        assert page.ask(_DELETE, id=run_id)["__typename"] == "DeletePipelineRunSuccess"
    else:
        page._context.instance.delete_run(run_id)
    assert not logs.exists()
