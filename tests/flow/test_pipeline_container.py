"""A pipeline container with real tools, a real code server and a real run server: the behaviour of `/runs`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import requests
from dagster import DagsterInstance

from bonseyes_dagster.client import Artifact, Container
from bonseyes_dagster.errors import ConflictError, InvalidError, NotFoundError, NotReadyError, UnavailableError
from bonseyes_dagster.model import Status
from bonseyes_dagster.orchestration.project import load_pipeline
from bonseyes_dagster.pipeline.app import create_app
from bonseyes_dagster.pipeline.runs import Runs
from bonseyes_dagster.settings import Settings
from tests.flow.tiny_project import PROJECT, TinyDagster, TinyProject, running_dagster, running_tools
from tests.waiting import free_port, until

WAIT_S = 90.0
pytestmark = pytest.mark.timeout(240)


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


@pytest.fixture
def launch(pipeline: Container, project: TinyProject) -> Callable[..., Artifact]:
    """Launch a run with two small archives."""

    def launch(name: str, content: bytes = b"abc", **parameters: Any) -> Artifact:
        archives = {"train": project.archive("train.bin", content), "test": project.archive("test.bin", content)}
        return pipeline.create(name, parameters, archives)

    return launch


def steps_of(status: Status) -> dict[str, str]:
    """Return the phase of each step."""
    assert status.steps is not None
    return {step.name: step.phase for step in status.steps}


def wait_for(run: Artifact, condition: Callable[[Status], bool]) -> Status:
    """Return the first status that meets a condition."""
    deadline = time.monotonic() + WAIT_S
    while not condition(status := run.status()):
        assert time.monotonic() < deadline and not status.is_final, status
        time.sleep(0.1)
    return status


@contextmanager
def own_runs(dagster: TinyDagster) -> Iterator[Runs]:
    """Yield what the pipeline's container serves, in this process."""
    runs = Runs(
        load_pipeline(PROJECT, "tiny-one"),
        Settings(addresses=dagster.project.addresses),
        volume=dagster.project.root / "volumes" / "tiny-one",
        workspace=dagster.home / "workspace.yaml",
    )
    with DagsterInstance.from_config(str(dagster.home)) as instance:
        runs.instance = instance  # type: ignore[misc] # in place of DAGSTER_HOME's
        yield runs


def test_root_describes_the_pipeline(pipeline: Container) -> None:
    """The description is like a tool's, with the job in Dagster."""
    described = pipeline.describe()
    assert (described.name, described.collection, described.output_type) == ("tiny-one", "/runs", "com.bonseyes.run")
    assert [parameter.name for parameter in described.parameters] == [
        "train",
        "test",
        "epochs",
        "pause",
        "fail",
        "kind",
    ]
    assert described.dagster is not None and described.dagster["job"] == "tiny_one"
    assert pipeline.task().name == "length"
    assert "/task" in pipeline.openapi()["paths"]


def test_a_run_from_archives_to_report(
    pipeline: Container, project: TinyProject, launch: Callable[..., Artifact], tmp_path: Path
) -> None:
    """Status, data, log, metrics and inputs of one run."""
    run = launch("whole", epochs=2, kind="long-winded")
    status = run.wait(WAIT_S)
    assert (status.phase, status.reason) == ("completed", None)
    assert set(steps_of(status).values()) == {"completed"}
    assert status.run_id and status.dagster_url and status.dagster_url.endswith(status.run_id)
    assert status.created and status.started and status.finished
    assert (status.progress.done, status.progress.total) == (4, 4)

    manifest = run.manifest()
    assert [entry.path for entry in manifest.files] == ["judge/pictures/bar.txt", "judge/report.json", "run.json"]
    assert (status.digest, status.size) == (manifest.digest, manifest.size)
    assert json.loads(run.read("judge/report.json"))["criteria"] == [{"metric": "accuracy", "minimum": 0.9}]
    content = requests.get(f"{pipeline.base_url}/runs/whole/data", timeout=30).content
    assert set(zipfile.ZipFile(BytesIO(content)).namelist()) == {entry.path for entry in manifest.files}

    document = json.loads(run.read("run.json"))
    learn = next(step for step in document["steps"] if step["name"] == "learn")
    made = project.container("learn").artifact("whole_learn")
    assert learn["artifact"]["url"] == "http://learn/artifacts/whole_learn"
    assert learn["artifact"]["digest"] == made.manifest().digest
    assert learn["artifact"]["parameters"]["kind"] == "long-winded"
    assert learn["tool_version"] == project.container("learn").describe().version
    assert document["parameters"]["epochs"] == 2
    assert run.read("run.json") == run.read("run.json")

    assert run.input_parameters() == {"epochs": 2, "pause": 0, "fail": "", "kind": "long-winded"}
    assert sorted(run.input_files()) == ["test", "train"]
    assert run.input_file("train", tmp_path / "train").read_bytes() == b"abc"
    points, _ = run.metric("judge.accuracy")
    assert [point.value for point in points] == [1.0]
    assert "learn.duration_s" in run.metrics()


def test_merged_log_is_in_the_order_of_time(launch: Callable[..., Artifact]) -> None:
    """Steps and tools are in one log, which grows only at its end."""
    run = launch("logged", epochs=3, pause=0.3)
    followed = b"".join(run.iter_log(follow=True))
    assert run.wait(WAIT_S).phase == "completed"
    whole = b"".join(run.iter_log())
    assert whole.startswith(followed)
    lines = whole.decode().splitlines()
    moments = [datetime.fromisoformat(line.split(" ", 1)[0]) for line in lines]
    assert moments == sorted(moments)
    assert any("learn: epoch 2" in line for line in lines)
    assert any("load_train: loading" in line for line in lines)
    assert b"".join(run.iter_log(offset=100)) == whole[100:]


def test_equal_artifacts_are_reused(launch: Callable[..., Artifact], project: TinyProject) -> None:
    """A second run with the same archives re-uses the artifacts of the first."""
    launch("first", b"same").wait(WAIT_S)
    assert launch("second", b"same").wait(WAIT_S).phase == "completed"
    status = project.container("learn").artifact("second_learn").status()
    assert status.reused_from == "first_learn"


def test_run_without_reuse_makes_every_artifact_again(
    pipeline: Container, project: TinyProject, launch: Callable[..., Artifact]
) -> None:
    """The request has `reuse=false`."""
    launch("done", b"anew").wait(WAIT_S)
    answer = requests.post(
        f"{pipeline.base_url}/runs?reuse=false",
        data={"name": "anew", "data": "{}"},
        files={"train": b"anew", "test": b"anew"},
        timeout=60,
    )
    assert answer.status_code == 200
    assert pipeline.artifact("anew").wait(WAIT_S).phase == "completed"
    assert project.container("learn").artifact("anew_learn").status().reused_from is None


def test_progress_of_steps_comes_from_the_containers(launch: Callable[..., Artifact]) -> None:
    """What a tool says of itself is in the run's status while it runs; the next test cancels this run."""
    run = launch("slow", epochs=500, pause=0.2)
    status = wait_for(run, lambda status: any(step.progress.done for step in status.steps or ()))
    (learn,) = [step for step in status.steps or () if step.name == "learn"]
    assert (learn.phase, learn.progress.total, learn.progress.unit) == ("running", 500, "epochs")
    assert (status.phase, status.progress.message) == ("running", "learn")
    assert steps_of(status)["judge"] == "queued"


def test_cancelling_a_run_cancels_its_artifact(pipeline: Container, project: TinyProject) -> None:
    """The tool stops, too, and what never began is not begun."""
    run = pipeline.artifact("slow")
    started = time.monotonic()
    run.cancel()
    status = run.wait(WAIT_S)
    assert status.phase == "cancelled"
    assert time.monotonic() - started < 30
    assert project.container("learn").artifact("slow_learn").wait(WAIT_S).phase == "cancelled"
    assert (steps_of(status)["learn"], steps_of(status)["judge"]) == ("cancelled", "cancelled")
    assert run.cancel().phase == "cancelled"


def test_a_failed_step_gives_its_reason(launch: Callable[..., Artifact], project: TinyProject) -> None:
    """The tool's own sentence, once; nothing is retried that would fail again."""
    run = launch("failing", fail="The archive is too boring.")
    status = run.wait(WAIT_S)
    assert (status.phase, status.reason) == ("failed", "learn: The archive is too boring.")
    assert steps_of(status) == {
        "load_train": "completed",
        "load_test": "completed",
        "learn": "failed",
        "judge": "cancelled",
    }
    with pytest.raises(NotReadyError, match="The archive is too boring"):
        run.manifest()
    assert "failing_judge" not in project.container("judge").names()


def test_bad_parameters_are_all_named_and_no_run_is_created(pipeline: Container, project: TinyProject) -> None:
    """A user can correct all of them at once."""
    before = pipeline.names()
    with pytest.raises(InvalidError) as caught:
        pipeline.create("bad", {"epochs": "x", "unknown": 1, "kind": "tall"}, {"train": project.archive("a", b"a")})
    assert set(caught.value.detail) == {"epochs", "unknown", "kind", "test"}
    with pytest.raises(InvalidError):
        pipeline.create("x" * 125, {}, {"train": b"a", "test": b"a"})
    assert pipeline.names() == before
    uploads = project.root / "volumes" / "tiny-one" / "drafts"
    assert list(uploads.iterdir()) == []


def test_only_one_of_many_creates_of_a_name_succeeds(pipeline: Container, project: TinyProject) -> None:
    """The name decides, in Dagster's own storage."""
    archive = project.archive("race", b"race")

    def create(_number: int) -> str:
        try:
            return pipeline.create("raced", {}, {"train": archive, "test": archive}).name
        except ConflictError as error:
            return type(error).__name__

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(create, range(8)))
    assert sorted(results) == ["ConflictError"] * 7 + ["raced"]
    assert pipeline.names().count("raced") == 1
    assert pipeline.artifact("raced").wait(WAIT_S).phase == "completed"


def test_repeated_request_returns_the_same_run(pipeline: Container, project: TinyProject) -> None:
    """The key with the same body returns the run, also to many requests at once. With another body it is refused."""
    archive = project.archive("again", b"again")
    files = {"train": archive, "test": archive}

    def create(_number: int) -> str:
        return pipeline.create("", {"epochs": 1}, files, idempotency_key="key-1").name

    with ThreadPoolExecutor(4) as pool:
        named = set(pool.map(lambda _: pipeline.create("keyed", {}, files, idempotency_key="key-2").name, range(4)))
    assert named == {"keyed"}
    assert create(1) == create(2)
    with pytest.raises(InvalidError):
        pipeline.create("keyed", {"epochs": 7}, files, idempotency_key="key-2")
    for name in (create(3), "keyed"):
        assert pipeline.artifact(name).wait(WAIT_S).phase == "completed"


def test_delete_with_artifacts_removes_them(
    pipeline: Container, project: TinyProject, launch: Callable[..., Artifact]
) -> None:
    """The request has `artifacts=true`. Afterwards the name is free again, and the uploads are gone."""
    run = launch("gone", b"gone")
    run.wait(WAIT_S)
    uploads = project.root / "volumes" / "tiny-one" / "uploads"
    before = len(list(uploads.iterdir()))
    run.delete(with_artifacts=True)
    assert "gone" not in pipeline.names()
    assert not any(name.startswith("gone_") for tool in project.servers for name in project.container(tool).names())
    assert len(list(uploads.iterdir())) == before - 1
    with pytest.raises(NotFoundError):
        run.status()
    assert launch("gone", b"gone").wait(WAIT_S).phase == "completed"


def test_deleting_a_running_run_ends_it(launch: Callable[..., Artifact], project: TinyProject) -> None:
    """Its artifacts in progress are cancelled. Its completed artifacts stay."""
    run = launch("ended", epochs=500, pause=0.2)
    # The step is running before its tool knows the artifact.
    until(lambda: "ended_learn" in project.container("learn").names(), WAIT_S)
    run.delete()
    with pytest.raises(NotFoundError):
        run.status()
    assert project.container("learn").artifact("ended_learn").wait(WAIT_S).phase == "cancelled"
    assert project.container("load").artifact("ended_load_train").status().phase == "completed"


def test_long_poll_ends_with_the_run(
    launch: Callable[..., Artifact], dagster: TinyDagster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It answers as soon as the run is final."""
    monkeypatch.setattr("bonseyes_dagster.web.responses.sending._SLICE_S", 60.0)
    seen: list[float] = []
    with own_runs(dagster) as runs:
        app = create_app(runs, Settings())

        def wait() -> None:
            answer = app.test_client().get("/runs/waited/status?wait=60")
            assert answer.json["phase"] == "completed"
            seen.append(time.time())

        run = launch("waited", epochs=4, pause=0.5)
        waiters = [threading.Thread(target=wait) for _ in range(3)]
        for waiter in waiters:
            waiter.start()
        for waiter in waiters:
            waiter.join(WAIT_S)
    finished = datetime.fromisoformat(run.status().finished or "").timestamp()
    assert len(seen) == 3
    assert max(seen) - finished < 10


def test_pages_of_runs(pipeline: Container) -> None:
    """Oldest first; a page begins after a name."""
    names = pipeline.names()
    assert pipeline.names(limit=2) == names[:2]
    assert pipeline.names(limit=2, after=names[1]) == names[2:4]
    assert [status.name for status in pipeline.statuses(limit=3)] == names[:3]
    assert set(pipeline.artifact(names[0]).info()) >= {"status", "parameters", "provenance"}


def test_containers_and_artifacts_of_the_pipeline(pipeline: Container) -> None:
    """Over all of its containers, by type."""
    assert {entry["name"]: (entry["type"], entry["status"]) for entry in pipeline.containers()} == {
        "load": ("data", "started"),
        "learn": ("model", "started"),
        "judge": ("model", "started"),
    }
    assert [entry["name"] for entry in pipeline.containers(type="data")] == ["load"]
    entries = pipeline.artifacts(output_type="com.bonseyes.model", status="completed")
    assert {entry["container"] for entry in entries} == {"learn"}
    assert "whole_learn" in {entry["name"] for entry in entries}
    assert {entry["status"] for entry in pipeline.artifacts(status="failed")} <= {"failed", "cancelled", "interrupted"}
    for path, status in (
        ("/containers/nobody", 404),
        ("/containers?type=x", 400),
        ("/artifacts?status=x", 400),
        ("/artifacts?type=data&type=model", 400),
        ("/containers/load/", 200),
    ):
        assert requests.get(f"{pipeline.base_url}{path}", timeout=30).status_code == status


def test_runs_of_dagsters_command_line_are_listed(pipeline: Container, dagster: TinyDagster) -> None:
    """Such a run is launched without a name and gets one. It is a run like any other."""
    archive = dagster.project.archive("cli", b"cli")
    config = json.dumps({"train": str(archive), "test": str(archive)})
    launch = ["dagster", "job", "launch", "-j", "tiny_one", "-w", str(dagster.home / "workspace.yaml")]
    subprocess.run(
        [sys.executable, "-m", *launch, "--config-json", config],
        env={**os.environ, **dagster.environment},
        check=True,
        capture_output=True,
        timeout=WAIT_S,
    )
    name = pipeline.names()[-1]
    assert name.startswith("tiny-one-")
    status = pipeline.artifact(name).wait(WAIT_S)
    assert status.phase == "completed"
    assert {step.artifact for step in status.steps or ()} >= {f"{name}_learn"}
    assert pipeline.artifact(name).input_files() == []


def test_run_names_are_unique_in_the_project(pipeline: Container, dagster: TinyDagster) -> None:
    """Two pipelines share containers, so their runs cannot share a name."""
    archive = dagster.project.archive("other", b"other")
    with dagster.serving_pipeline("tiny-two") as other:
        with pytest.raises(ConflictError, match="tiny-one"):
            other.create("whole", {}, {"train": archive, "test": archive})
        assert other.names() == []
        with pytest.raises(NotFoundError):
            other.artifact("whole").status()


def test_run_continues_without_its_pipeline_container(dagster: TinyDagster) -> None:
    """The container is killed during a run. After its restart it finds the run finished."""
    archive = dagster.project.archive("absent", b"absent")
    port = free_port()
    with dagster.pipeline_server("tiny-two", port) as (container, server):
        run = container.create("absent", {}, {"train": archive, "test": archive})
        server.kill()
        server.wait(10)
    with dagster.serving_pipeline("tiny-two") as container:
        assert container.artifact(run.name).wait(WAIT_S).phase == "completed"


def test_silent_container_is_named_in_a_header(
    pipeline: Container, project: TinyProject, launch: Callable[..., Artifact]
) -> None:
    """A container that is away makes an answer smaller, not wrong. The run waits for its return."""
    addresses = json.loads(project.addresses.read_text())
    project.addresses.write_text(json.dumps({**addresses, "judge": f"http://127.0.0.1:{free_port()}"}))
    try:
        answer = requests.get(f"{pipeline.base_url}/artifacts", timeout=60)
        assert answer.status_code == 200
        assert answer.headers["X-Bonseyes-Unreachable"] == "judge"
        assert {entry["container"] for entry in answer.json()} == {"load", "learn"}
        (judge,) = [entry for entry in pipeline.containers() if entry["name"] == "judge"]
        assert (judge["status"], judge["info"]) == ("missing", None)
        assert pipeline.artifact("whole").status().phase == "completed"
        run = launch("patient", b"patient")
        wait_for(run, lambda status: steps_of(status)["learn"] == "completed")
        time.sleep(1.0)
        assert run.status().phase == "running"
    finally:
        project.addresses.write_text(json.dumps(addresses))
    assert run.wait(WAIT_S).phase == "completed"


def test_interrupted_deletion_is_finished_later(
    pipeline: Container, dagster: TinyDagster, launch: Callable[..., Artifact]
) -> None:
    """The run is hidden at once.

    Its artifacts are deleted when their container is back; until then its name is taken.
    """
    project = dagster.project
    run = launch("stubborn", b"stubborn")
    run.wait(WAIT_S)
    addresses = json.loads(project.addresses.read_text())
    project.addresses.write_text(json.dumps({**addresses, "judge": f"http://127.0.0.1:{free_port()}"}))
    try:
        answer = requests.delete(f"{pipeline.base_url}/runs/stubborn?artifacts=true", timeout=60)
        assert answer.status_code == 503
        assert "judge/artifacts/stubborn_judge" in answer.json()["error"]["message"]
        assert "stubborn" not in pipeline.names()
        with pytest.raises(ConflictError):
            launch("stubborn", b"stubborn")
    finally:
        project.addresses.write_text(json.dumps(addresses))
    with own_runs(dagster) as runs:
        runs.clean()
    assert "stubborn_judge" not in project.container("judge").names()
    assert launch("stubborn", b"stubborn").wait(WAIT_S).phase == "completed"


def test_repeated_request_launches_a_run_that_was_not_launched(
    pipeline: Container, dagster: TinyDagster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dagster's storage may be away between creation and launch. The run finds the archives of the first request."""

    def fail(*_: object) -> None:
        raise UnavailableError("The storage is away.")

    with own_runs(dagster) as runs:
        client = create_app(runs, Settings()).test_client()

        def post() -> int:
            archives = {name: (BytesIO(b"halfway"), name) for name in ("train", "test")}
            body = {"name": "halfway", "data": "{}", **archives}
            return client.post("/runs", data=body, headers={"Idempotency-Key": "halfway"}).status_code

        with monkeypatch.context() as patch:
            patch.setattr(runs.instance, "submit_run", fail)
            patch.setattr(runs.instance, "delete_run", fail)
            assert post() == 503
        assert pipeline.artifact("halfway").status().phase == "queued"
        assert (post(), post()) == (200, 200)
    assert pipeline.artifact("halfway").wait(WAIT_S).phase == "completed"


@pytest.mark.slow
def test_create_without_a_code_server_is_refused(
    pipeline: Container, dagster: TinyDagster, project: TinyProject
) -> None:
    """The caller gets the reason, and no row is left. Runs stay readable, and a later create succeeds."""
    archives = {"train": b"a", "test": b"a"}
    earlier = pipeline.create("earlier", {}, archives)
    earlier.wait(WAIT_S)
    before = pipeline.names()
    dagster.code_server.kill()
    dagster.code_server.wait(10)
    body = {"name": "lost", "data": "{}"}
    answer = requests.post(f"{pipeline.base_url}/runs", data=body, files=archives, timeout=90)
    assert answer.status_code == 503
    assert "code server" in answer.json()["error"]["message"]
    assert pipeline.names() == before
    assert earlier.status().is_final
    with pytest.raises(NotFoundError):
        pipeline.artifact("lost").status()
    with dagster.serving_code():
        run = pipeline.create("found", {}, archives)
        assert run.wait(WAIT_S).phase == "completed"
