"""Ops that use real tools, in Dagster's own executors: their results, failures and retries."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from dagster import (
    DagsterInstance,
    ExecuteInProcessResult,
    ReexecutionOptions,
    execute_job,
)
from dagster._core.definitions.reconstruct import ReconstructableRepository

from bonseyes_dagster import ArtifactRef, Pipeline
from bonseyes_dagster.client import Addresses
from bonseyes_dagster.execution.runs.run_names import run_name
from bonseyes_dagster.orchestration.project import load_pipeline
from bonseyes_dagster.orchestration.runs.container_requests import ContainerRequests
from bonseyes_dagster.orchestration.runs.records import Records
from bonseyes_dagster.orchestration.runs.states import States
from bonseyes_dagster.pipeline.provenance import provenance_of
from bonseyes_dagster.tags import REUSE_TAG, RUN_TAG
from tests.contract.tools.server import tool_server
from tests.flow.tiny_project import PROJECT, TinyProject, running_tools, stop

pytestmark = pytest.mark.timeout(240)
WAIT_S = 60.0


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TinyProject]:
    """Start the tools, and give this process the environment of a process of the project."""
    with running_tools(tmp_path_factory.mktemp("tiny")) as project, pytest.MonkeyPatch.context() as patch:
        for name, value in project.environment.items():
            patch.setenv(name, value)
        yield project


@pytest.fixture(scope="module")
def pipeline(project: TinyProject) -> Pipeline:
    """Return the definition of the pipeline."""
    return load_pipeline(PROJECT, "tiny-one")


@pytest.fixture(scope="module")
def instance(project: TinyProject) -> Iterator[DagsterInstance]:
    """Return an instance with files. A re-execution and other processes can open it."""
    home = project.root / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    with DagsterInstance.from_config(str(home)) as instance:
        yield instance


@pytest.fixture
def execute(
    pipeline: Pipeline, project: TinyProject, instance: DagsterInstance
) -> Callable[..., ExecuteInProcessResult]:
    """Return a function that runs the pipeline in this process, with Dagster's in-process executor."""

    def execute(name: str, content: bytes = b"abc", reuse: str = "true", **parameters: Any) -> ExecuteInProcessResult:
        archive = str(project.archive(f"{name}.bin", content))
        return pipeline.job.execute_in_process(
            run_config={"train": archive, "test": archive, **parameters},
            tags={RUN_TAG: name, REUSE_TAG: reuse},
            instance=instance,
            raise_on_error=False,
        )

    return execute


def failure_of(result: ExecuteInProcessResult) -> Any:
    """Return the failure of the one failed step."""
    (event,) = result.get_step_failure_events()
    return event.step_failure_data.user_failure_data


def test_op_returns_a_typed_reference(execute: Callable[..., ExecuteInProcessResult], project: TinyProject) -> None:
    """The reference has the digest that the container reports. Dagster gets a materialization of the artifact."""
    result = execute("plain", epochs=2)
    assert result.success
    made = project.container("learn").artifact("plain_learn")
    reference = result.output_for_node("learn")
    assert reference == ArtifactRef(
        container="learn",
        name="plain_learn",
        type="com.bonseyes.model",
        digest=made.manifest().digest,
        size=made.status().size,
    )
    (materialization,) = result.asset_materializations_for_node("learn")
    values = {key: entry.value for key, entry in materialization.metadata.items()}
    assert list(materialization.asset_key.path) == ["tiny-one", "learn"]
    assert values["url"] == reference.url
    assert values["page"] == "http://127.0.0.1:8000/#/learn/artifacts/plain_learn"
    assert values["parameters"]["epochs"] == 2
    assert values["version"] == project.container("learn").describe().version
    (judged,) = result.asset_materializations_for_node("judge")
    assert judged.metadata["metric.accuracy"].value == 1.0


def test_output_of_the_tool_is_output_of_the_step(
    execute: Callable[..., ExecuteInProcessResult], instance: DagsterInstance, capfd: pytest.CaptureFixture[str]
) -> None:
    """Every line is in the step's stdout and in Dagster's log of the run."""
    result = execute("printed", content=b"printed", epochs=3)
    assert "epoch 2" in capfd.readouterr().out
    messages = [entry.user_message for entry in instance.all_logs(result.run_id) if entry.step_key == "learn"]
    assert any("epoch 0" in message for message in messages)


def test_reuse_can_be_turned_off(execute: Callable[..., ExecuteInProcessResult], project: TinyProject) -> None:
    """A tag of the run turns it off. By default, a step re-uses an equal artifact."""
    execute("original", content=b"reuse", pause=0.01)
    execute("copy", content=b"reuse", pause=0.01)
    execute("anew", content=b"reuse", pause=0.01, reuse="false")
    learn = project.container("learn")
    assert learn.artifact("copy_learn").status().reused_from == "original_learn"
    assert learn.artifact("anew_learn").status().reused_from is None


def test_step_reports_that_the_code_of_its_tool_changed(
    execute: Callable[..., ExecuteInProcessResult],
    project: TinyProject,
    pipeline: Pipeline,
    instance: DagsterInstance,
    tmp_path: Path,
) -> None:
    """The report is in Dagster's log, in the materialization and in `run.json`. Other steps have no report."""
    tool = shutil.copytree(PROJECT / "containers" / "learn", tmp_path / "learn")
    before = project.addresses.read_text()
    with tool_server(tool, tmp_path / "volume", BONSEYES_ADDRESSES=str(project.addresses)) as server:
        project.addresses.write_text(json.dumps({**json.loads(before), "learn": server.url}))
        try:
            (tool / "new.py").touch()
            result = execute("changed")
        finally:
            project.addresses.write_text(before)
    assert result.success
    (materialization,) = result.asset_materializations_for_node("learn")
    assert materialization.metadata["code_changed"].value is True
    records = Records(instance, pipeline)
    states = States(records, pipeline, ContainerRequests(Addresses.from_settings()), "http://gateway")
    steps = provenance_of(states.read(records.find("changed")), {})["steps"]
    changed = {step["name"]: step["artifact"]["code_changed"] for step in steps}
    assert changed == {"load_train": False, "load_test": False, "learn": True, "judge": False}
    messages = [entry.user_message for entry in instance.all_logs(result.run_id) if entry.step_key == "learn"]
    assert any("the code of its tool changed" in message for message in messages)


def test_step_fails_if_the_name_of_its_artifact_is_taken(
    execute: Callable[..., ExecuteInProcessResult], project: TinyProject
) -> None:
    """The step must neither use nor remove an artifact that somebody else made."""
    project.container("load").create("taken_load_train", {}, {"archive": b"other"}).wait(WAIT_S)
    result = execute("taken")
    failure = failure_of(result)
    assert "http://load/artifacts/taken_load_train exists" in failure.description
    assert project.container("load").artifact("taken_load_train").read("archive.bin") == b"other"


def test_second_run_of_a_name_gets_its_own_name(
    execute: Callable[..., ExecuteInProcessResult], project: TinyProject
) -> None:
    """`dagster job execute` can start two runs with one name. The first run must keep its artifacts."""
    assert execute("twin", content=b"first").success
    second = execute("twin", content=b"second")
    assert second.success
    made = second.output_for_node("load_train")
    assert made.name == f"twin-{second.run_id[:8]}_load_train"
    contents = [project.container("load").artifact(name).read("archive.bin") for name in ("twin_load_train", made.name)]
    assert contents == [b"first", b"second"]


def test_file_outside_the_allowed_folders_fails_at_once(
    execute: Callable[..., ExecuteInProcessResult], project: TinyProject
) -> None:
    """Otherwise a user who may launch runs could read any file as an input file of the artifact."""
    result = execute("outside", train="/etc/hostname")
    description = failure_of(result).description
    assert "/etc/hostname is outside the folders" in description
    assert "BONSEYES_FILES" in description
    assert "outside_load_train" not in project.container("load").names()


def test_missing_file_fails_at_once(execute: Callable[..., ExecuteInProcessResult], project: TinyProject) -> None:
    """The process of the run reads the path. The message has the whole path."""
    result = execute("lost", train=str(project.root / "missing.bin"))
    assert str(project.root / "missing.bin") in failure_of(result).description
    assert not any(event.is_step_up_for_retry for event in result.all_events)


def test_failure_of_a_tool_is_not_retried(execute: Callable[..., ExecuteInProcessResult]) -> None:
    """The tool would fail again."""
    result = execute("refused", fail="Not with me.")
    assert failure_of(result).description == "Not with me."
    assert not any(event.is_step_up_for_retry for event in result.all_events)


@pytest.mark.slow
def test_restarted_container_makes_the_artifact_again(
    execute: Callable[..., ExecuteInProcessResult], project: TinyProject
) -> None:
    """A kill ends the container while it works. The step requests the artifact again, and the run completes."""
    learn = project.container("learn")
    results: list[ExecuteInProcessResult] = []
    thread = threading.Thread(
        target=lambda: results.append(execute("struck", content=b"struck", epochs=20, pause=0.25))
    )
    thread.start()
    while "struck_learn" not in learn.names() or (learn.artifact("struck_learn").status().progress.done or 0) < 2:
        assert thread.is_alive()
        time.sleep(0.05)
    project.kill("learn")
    time.sleep(0.5)
    project.start_again("learn")
    thread.join(WAIT_S)
    assert results and results[0].success
    assert any(event.is_step_up_for_retry and event.step_key == "learn" for event in results[0].all_events)


def test_interrupt_cancels_the_artifact(project: TinyProject, instance: DagsterInstance) -> None:
    """Ctrl-C on `dagster job execute`, or a termination, stops the tool too."""
    archive = project.archive("interrupted.bin", b"interrupted")
    code = (
        "import sys; from pathlib import Path; from bonseyes_dagster.orchestration.project import load_pipeline; "
        "from dagster import DagsterInstance; "
        f"job = load_pipeline(Path({str(PROJECT)!r}), 'tiny-one').job; "
        f"job.execute_in_process(run_config={{'train': {str(archive)!r}, 'test': {str(archive)!r}, "
        "'epochs': 500, 'pause': 0.2}, tags={'bonseyes/run': 'interrupted'}, instance=DagsterInstance.ephemeral())"
    )
    process = subprocess.Popen([sys.executable, "-c", code], env=os.environ, stderr=subprocess.DEVNULL)
    learn = project.container("learn")
    try:
        deadline = time.monotonic() + WAIT_S
        while "interrupted_learn" not in learn.names():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        assert learn.artifact("interrupted_learn").wait(WAIT_S).phase == "cancelled"
        process.wait(20)
    finally:
        stop(process)


def test_re_execution_does_not_repeat_completed_steps(
    project: TinyProject, pipeline: Pipeline, instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The re-execution begins at the failed step, with the parent's artifacts. The steps tell which run made them."""
    monkeypatch.setenv("DAGSTER_HOME", str(project.root / "home"))
    repository = ReconstructableRepository.for_file(str(PROJECT / "definitions.py"), "defs", str(PROJECT))
    job = repository.get_reconstructable_job("tiny_one")
    archive = str(project.archive("again.bin", b"again"))
    config = {"train": archive, "test": archive, "fail": "This time."}
    with execute_job(job, instance, run_config=config, tags={RUN_TAG: "parent"}) as parent:
        assert not parent.success
    before = project.container("load").names()
    options = ReexecutionOptions.from_failure(parent.run_id, instance)
    tags = {RUN_TAG: "child"}
    with execute_job(job, instance, run_config={**config, "fail": ""}, tags=tags, reexecution_options=options) as child:
        assert child.success
        assert {event.step_key for event in child.get_step_success_events()} == {"learn", "judge"}
        assert run_name(child.dagster_run) == "child"
    assert project.container("load").names() == before
    inputs = project.container("learn").artifact("child_learn").input_parameters()
    assert inputs["dataset"] == "http://load/artifacts/parent_load_train"

    records = Records(instance, pipeline)
    states = States(records, pipeline, ContainerRequests(Addresses.from_settings()), "http://gateway")
    state = states.read(records.find("child"))
    assert {step.name: step.artifact for step in state.steps} == {
        "load_train": "parent_load_train",
        "load_test": "parent_load_test",
        "learn": "child_learn",
        "judge": "child_judge",
    }
    assert {step.phase for step in state.steps} == {"completed"}
    assert [step.name for step in state.steps if not step.is_inherited] == ["learn", "judge"]
    document = provenance_of(state, {})
    assert all(step["artifact"]["digest"] for step in document["steps"])
