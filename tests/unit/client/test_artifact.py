"""Wait for, follow, cancel and delete an artifact, also while the server restarts."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from bonseyes_dagster import errors
from bonseyes_dagster.client import Container
from bonseyes_dagster.model import Point, Status
from tests.unit.client.scripted_server import Answer, Call, ScriptedServer, error

STATUS = "/artifacts/a/status"
LOG = "/artifacts/a/log"


def status(phase: str, **values: Any) -> Answer:
    """Return a status answer."""
    return Answer(Status(name="a", phase=phase, **values).to_json())  # type: ignore[arg-type]


def long_poll(until: threading.Event) -> Any:
    """Return a reply that waits as long as `?wait=` says, or until the event is set."""

    def answer(call: Call) -> Answer:
        is_done = until.wait(float(call.query.get("wait", 0)))
        return status("completed" if is_done else "running")

    return answer


def test_wait_without_callback_sends_one_request(server: ScriptedServer, container: Container) -> None:
    """One long poll a minute is enough: it answers as soon as the artifact is final."""
    done = threading.Event()
    server.on("GET", STATUS, long_poll(done))
    threading.Timer(0.5, done.set).start()
    started = time.monotonic()
    assert container.artifact("a").wait(30).phase == "completed"
    assert time.monotonic() - started < 3
    assert len(server.calls) == 1


def test_wait_calls_back_once_per_changed_status(server: ScriptedServer, container: Container) -> None:
    """The first status comes without delay, and the final one comes, too."""
    server.on("GET", STATUS, status("queued", position=1), status("running"), status("running"), status("failed"))
    phases: list[str] = []
    final = container.artifact("a").wait(30, lambda status: phases.append(status.phase))
    assert phases == ["queued", "running", "failed"]
    assert final.result == "failed"
    assert [call.query.get("wait") for call in server.calls] == [None, "0.5", "0.5", "0.5"]


def test_wait_ends_after_its_timeout(server: ScriptedServer, container: Container) -> None:
    """The timeout holds during an open long poll, too."""
    server.on("GET", STATUS, long_poll(threading.Event()))
    started = time.monotonic()
    with pytest.raises(errors.WaitTimeoutError, match="still running"):
        container.artifact("a").wait(0.4)
    assert 0.3 < time.monotonic() - started < 3


def test_wait_survives_a_restart(server: ScriptedServer, container: Container) -> None:
    """The server stops in the middle of a poll, and starts again a second later."""
    done = threading.Event()
    server.on("GET", STATUS, long_poll(done))

    def restart() -> None:
        time.sleep(0.3)
        server.stop()
        time.sleep(1.0)
        done.set()
        server.start()

    restarting = threading.Thread(target=restart)
    restarting.start()
    impatient = Container(server.url, name="t", kind="artifacts", retry_s=0)
    assert impatient.artifact("a").wait(30).phase == "completed"
    restarting.join(10)


def test_wait_gives_up_after_its_patience(server: ScriptedServer) -> None:
    """It ends after `patience_s` without an answer, and at once after a 404."""
    container = Container(server.url, name="t", kind="artifacts", retry_s=0)
    with pytest.raises(errors.NotFoundError):
        container.artifact("a").wait()
    server.stop()
    with pytest.raises(errors.ConnectionFailedError):
        container.artifact("a").wait(patience_s=0.2)


def test_wait_timeout_is_shorter_than_patience(server: ScriptedServer) -> None:
    """`patience_s` must not make the caller wait longer than `timeout_s`."""
    container = Container(server.url, name="t", kind="artifacts", retry_s=0)
    server.stop()
    started = time.monotonic()
    with pytest.raises(errors.ConnectionFailedError):
        container.artifact("a").wait(0.3, patience_s=60)
    assert time.monotonic() - started < 5


def test_delete_succeeds_when_only_the_answer_is_lost(server: ScriptedServer, container: Container) -> None:
    """The retry gets a 404, because the first request deleted the artifact."""
    server.on("DELETE", "/artifacts/a", Answer(drop=True), error(404, "not_found"))
    container.artifact("a").delete()
    assert len(server.calls) == 2


def test_delete_of_a_missing_artifact_raises_not_found(server: ScriptedServer, container: Container) -> None:
    """A 404 to the first request means that there never was an artifact."""
    with pytest.raises(errors.NotFoundError):
        container.artifact("a").delete()


def test_delete_with_artifacts_sends_the_parameter(server: ScriptedServer, container: Container) -> None:
    """The contract calls the query parameter `artifacts`."""
    server.on("DELETE", "/artifacts/a", Answer({"result": "success"}))
    container.artifact("a").delete(with_artifacts=True)
    assert server.calls[0].query == {"artifacts": "true"}


def test_delete_with_remaining_artifacts_is_not_repeated(server: ScriptedServer, container: Container) -> None:
    """The run is hidden already: a retry would get a 404, although some artifacts are left."""
    left = {"left": {"http://train/artifacts/a_train": "No answer."}}
    server.on("DELETE", "/artifacts/a", error(503, "unavailable", detail=left), error(404, "not_found"))
    with pytest.raises(errors.UnavailableError) as caught:
        container.artifact("a").delete(with_artifacts=True)
    assert (caught.value.detail, len(server.calls)) == (left, 1)


def test_delete_returns_the_kept_artifacts(server: ScriptedServer, container: Container) -> None:
    """A server that does not list them counts as one that keeps none."""
    stays = ["http://train/artifacts/a_train"]
    server.on("DELETE", "/artifacts/a", Answer({"result": "success", "kept": stays}), Answer({"result": "success"}))
    assert [container.artifact("a").delete(), container.artifact("a").delete()] == [stays, []]


def test_rename_succeeds_when_only_the_answer_is_lost(server: ScriptedServer, container: Container) -> None:
    """The retry gets a 404 for the old name, and the artifact exists under the new one."""
    server.on("PATCH", "/artifacts/a", Answer(drop=True), error(404, "not_found"))
    server.on("GET", "/artifacts/b/status", status("completed"))
    assert container.artifact("a").rename("b").name == "b"


def test_rename_of_a_missing_artifact_raises_not_found(server: ScriptedServer, container: Container) -> None:
    """The artifact exists under neither name."""
    server.on("PATCH", "/artifacts/a", error(404, "not_found"))
    with pytest.raises(errors.NotFoundError):
        container.artifact("a").rename("b")


def test_cancel_returns_the_status(server: ScriptedServer, container: Container) -> None:
    """The caller needs no second request to see the phase."""
    server.on("POST", "/artifacts/a/cancel", status("cancelled"))
    assert container.artifact("a").cancel().phase == "cancelled"


def test_log_without_follow_is_one_request(server: ScriptedServer, container: Container) -> None:
    """The request asks for the log from the offset on."""
    server.on("GET", LOG, lambda call: Answer(b"0123456789"[int(call.query["offset"]) :]))
    assert b"".join(container.artifact("a").iter_log(4)) == b"456789"
    assert [call.path for call in server.calls] == [LOG]


def test_followed_log_arrives_line_by_line_and_complete(server: ScriptedServer, container: Container) -> None:
    """After a broken connection, it continues at the same byte, and no line comes twice."""
    text = b"one\ntwo\nthree\nfour\n"
    go = threading.Event()

    def broken() -> Iterator[bytes]:
        yield b"one\n"
        assert go.wait(10)
        yield b"two\n"
        raise RuntimeError

    def follow(call: Call) -> Answer:
        start = int(call.query["offset"])
        return Answer(chunks=[text[start:14]] if "follow" in call.query else [text[start:]])

    server.on("GET", LOG, Answer(chunks=broken()), follow)
    server.on("GET", STATUS, status("running"), status("running"), status("completed"))
    lines = container.artifact("a").iter_log(follow=True)
    assert next(lines) == b"one\n"
    go.set()
    assert b"one\n" + b"".join(lines) == text
    offsets = [(call.query["offset"], "follow" in call.query) for call in server.calls if call.path == LOG]
    assert offsets == [("0", True), ("8", True), ("14", False)]


def test_followed_log_gives_up_after_its_patience(server: ScriptedServer) -> None:
    """A server that never comes back must not block the caller for ever."""
    container = Container(server.url, name="t", kind="artifacts", retry_s=0)
    server.stop()
    with pytest.raises(errors.ConnectionFailedError):
        list(container.artifact("a").iter_log(follow=True, patience_s=0.2))


def test_metric_returns_whole_lines_and_the_next_offset(server: ScriptedServer, container: Container) -> None:
    """A metric is read while it grows: its last line may be incomplete."""
    text = b"1.5 0 0.25\n2.5 1 nan\n3.5 2 0.1"
    server.on("GET", "/artifacts/a/metrics", Answer(["loss"]))
    server.on("GET", "/artifacts/a/metrics/loss/scalar", lambda call: Answer(text[int(call.query.get("offset", 0)) :]))
    artifact = container.artifact("a")
    points, offset = artifact.metric("loss")
    assert (artifact.metrics(), points[0], len(points)) == (["loss"], Point(1.5, 0, 0.25), 2)
    assert offset == text.rindex(b"\n") + 1
    assert artifact.metric("loss", offset) == ([], offset)


def test_create_refuses_nan_and_infinity(container: Container) -> None:
    """JSON has no such numbers; `detail` names the parameters, as it does in a container's error."""
    with pytest.raises(errors.InvalidError) as caught:
        container.create("a", {"rate": float("nan"), "sizes": [1, float("inf")], "epochs": 1})
    assert list(caught.value.detail) == ["rate", "sizes"]


def test_info_parameters_input_files_and_statuses(server: ScriptedServer, container: Container) -> None:
    """These are the remaining reads of the contract."""
    server.on("GET", "/artifacts/a", Answer({"name": "a", "provenance": {}}))
    server.on("GET", "/artifacts/a/input-parameters", Answer({"size": 28}))
    server.on("GET", "/artifacts/a/input-files", Answer(["images"]))
    server.on("GET", "/artifacts", Answer([Status(name="a", phase="queued").to_json()]))
    artifact = container.artifact("a")
    assert artifact.info()["name"] == "a"
    assert (artifact.input_parameters(), artifact.input_files()) == ({"size": 28}, ["images"])
    assert container.statuses(limit=5, after="z") == [Status(name="a", phase="queued")]
    assert server.calls[-1].query == {"detail": "1", "limit": "5", "after": "z"}
    assert repr(artifact) == f"<Artifact a of {server.url}>"
