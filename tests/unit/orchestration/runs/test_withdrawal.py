"""Artifacts that an ended run left in progress are cancelled over HTTP, until a new run has its id."""

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from dagster import DagsterEvent, DagsterEventType, DagsterInstance, DagsterRun, job, op
from dagster._core.execution.stats import StepEventStatus

from bonseyes_dagster.execution.runs.run_names import run_id_of
from bonseyes_dagster.orchestration.runs import withdrawal
from bonseyes_dagster.orchestration.runs.withdrawal import withdraw
from bonseyes_dagster.tags import CONTAINER_TAG, RUN_TAG

RUN_ID = run_id_of("x")
CANCEL = re.compile("/artifacts/(.+)/cancel")


@op(tags={CONTAINER_TAG: "maker"})
def make() -> None:
    """Make an artifact."""


@job
def makes():
    """Two artifacts."""
    make.alias("a")()
    make.alias("b")()


class Maker(ThreadingHTTPServer):
    """A tool's container that can cancel, and that knows the idempotency key of each artifact."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.artifacts = {"x_a", "x_b"}
        self.keys = {"x_a": f"{RUN_ID}/a"}
        self.asked: list[str] = []
        self.before_answer = lambda: None


class Answer(BaseHTTPRequestHandler):
    """Answers one request."""

    server: Maker

    def do_GET(self) -> None:
        """Describe an artifact; without a key, as a container of an earlier version does."""
        name = self.path.removeprefix("/artifacts/")
        key = {"idempotency_key": self.server.keys[name]} if name in self.server.keys else {}
        self.say(name, {"name": name, **key})

    def do_POST(self) -> None:
        """Cancel an artifact."""
        name = CANCEL.fullmatch(self.path)[1]
        self.server.asked.append(name)
        self.server.before_answer()
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.say(name, {"result": "failed", "phase": "cancelled", "name": name})

    def say(self, name: str, body: dict[str, str]) -> None:
        """Send the answer, or 404 if there is no such artifact."""
        is_there = name in self.server.artifacts
        content = json.dumps(body if is_there else {"error": {"code": "not_found", "message": name}}).encode()
        self.send_response(200 if is_there else 404)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.fixture
def maker(tmp_path, monkeypatch):
    """Serve the container under its name."""
    with Maker() as maker:
        threading.Thread(target=maker.serve_forever, daemon=True).start()
        addresses = tmp_path / "addresses.json"
        addresses.write_text(json.dumps({"maker": f"http://127.0.0.1:{maker.server_port}"}))
        monkeypatch.setenv("BONSEYES_ADDRESSES", str(addresses))
        yield maker
        maker.shutdown()


@pytest.fixture
def instance(tmp_path):
    """Return an instance with a run that has ended while both its steps were in progress."""
    with DagsterInstance.local_temp(str(tmp_path)) as instance:
        run = create(instance)
        for step in ("a", "b"):
            event = DagsterEvent(DagsterEventType.STEP_START.value, "makes", step_key=step)
            instance.report_dagster_event(event, RUN_ID)
        instance.report_run_failed(run)
        yield instance


def create(instance: DagsterInstance) -> DagsterRun:
    """Create a run that no process executes, always with the same name."""
    return instance.create_run_for_job(makes, run_id=RUN_ID, tags={RUN_TAG: "x"})


def test_artifacts_in_progress_are_cancelled(instance, maker):
    """Afterwards no step of the ended run is in progress."""
    assert withdraw(instance, RUN_ID)
    assert maker.asked == ["x_a", "x_b"]
    assert {stats.status for stats in instance.get_run_step_stats(RUN_ID)} == {StepEventStatus.FAILURE}


@pytest.mark.parametrize("has_failed", [False, True])
def test_new_run_of_the_name_is_left_alone(instance, maker, has_failed):
    """It is launched while a container is slow to answer about the old run."""

    def replace():
        instance.delete_run(RUN_ID)
        run = create(instance)
        if has_failed:
            instance.report_run_failed(run)

    maker.before_answer = replace
    assert not withdraw(instance, RUN_ID)
    assert maker.asked == ["x_a"]


def test_missing_artifact_is_tried_again_for_a_while(instance, maker, monkeypatch):
    """A request for it may still be in flight."""
    maker.artifacts.remove("x_b")
    assert not withdraw(instance, RUN_ID)
    maker.artifacts.add("x_b")
    assert withdraw(instance, RUN_ID)
    assert maker.asked == ["x_a", "x_a", "x_b"]
    maker.artifacts.clear()
    assert not withdraw(instance, RUN_ID)
    monkeypatch.setattr(withdrawal, "_ARRIVAL_S", 0.0)
    assert withdraw(instance, RUN_ID)


@pytest.mark.parametrize("key", [None, "by hand", f"{RUN_ID}/{'0' * 32}/a", f"{RUN_ID}/b"])
def test_artifact_with_another_key_is_not_cancelled(instance, maker, key, monkeypatch):
    """It has the name of the step's artifact. The step's own artifact may still come, for a while."""
    maker.keys["x_a"] = key
    assert not withdraw(instance, RUN_ID)
    assert maker.asked == ["x_b"]
    monkeypatch.setattr(withdrawal, "_ARRIVAL_S", 0.0)
    assert withdraw(instance, RUN_ID)
    assert "x_a" not in maker.asked
