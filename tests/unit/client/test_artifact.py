"""Waiting, following, cancelling and removing, with a server that does not always stay up."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from bonseyes_dagster import errors
from bonseyes_dagster.client import Container
from bonseyes_dagster.model import Point, Status
from tests.unit.client.unruly_server import Answer, Call, UnrulyServer, error

STATUS = "/artifacts/a/status"
LOG = "/artifacts/a/log"


def status(phase: str, **values: Any) -> Answer:
    """Return a status answer."""
    return Answer(Status(name="a", phase=phase, **values).to_json())  # type: ignore[arg-type]


def long_poll(until: threading.Event) -> Any:
    """Return a reply that honours ?wait= until the event is set."""

    def answer(call: Call) -> Answer:
        is_done = until.wait(float(call.query.get("wait", 0)))
        return status("completed" if is_done else "running")

    return answer


def test_wait_is_one_long_poll(server: UnrulyServer, container: Container) -> None:
    """Without a callback one request a minute is enough, and the end is heard at once."""
    done = threading.Event()
    server.on("GET", STATUS, long_poll(done))
    threading.Timer(0.5, done.set).start()
    started = time.monotonic()
    assert container.artifact("a").wait(30).phase == "completed"
    assert time.monotonic() - started < 3
    assert len(server.calls) == 1


def test_wait_reports_what_changes(server: UnrulyServer, container: Container) -> None:
    """The callback hears each different status once, the first without delay, and the last."""
    server.on("GET", STATUS, status("queued", position=1), status("running"), status("running"), status("failed"))
    heard: list[str] = []
    final = container.artifact("a").wait(30, lambda status: heard.append(status.phase))
    assert heard == ["queued", "running", "failed"]
    assert final.result == "failed"
    assert [call.query.get("wait") for call in server.calls] == [None, "0.5", "0.5", "0.5"]


def test_wait_has_an_end(server: UnrulyServer, container: Container) -> None:
    """The caller's patience is kept to, also while a poll is open."""
    server.on("GET", STATUS, long_poll(threading.Event()))
    started = time.monotonic()
    with pytest.raises(errors.WaitTimeoutError, match="still running"):
        container.artifact("a").wait(0.4)
    assert 0.3 < time.monotonic() - started < 3


def test_wait_survives_a_restart(server: UnrulyServer, container: Container) -> None:
    """The server goes away in the middle of a poll, is gone for a while, and is waited for."""
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


def test_wait_does_not_survive_everything(server: UnrulyServer) -> None:
    """After `patience_s` without an answer it is over; after a 404 at once."""
    container = Container(server.url, name="t", kind="artifacts", retry_s=0)
    with pytest.raises(errors.NotFoundError):
        container.artifact("a").wait()
    server.stop()
    with pytest.raises(errors.ConnectionFailedError):
        container.artifact("a").wait(patience_s=0.2)


def test_the_timeout_holds_while_nobody_answers(server: UnrulyServer) -> None:
    """`timeout_s` is not prolonged by the patience with a server that is away."""
    container = Container(server.url, name="t", kind="artifacts", retry_s=0)
    server.stop()
    started = time.monotonic()
    with pytest.raises(errors.ConnectionFailedError):
        container.artifact("a").wait(0.3, patience_s=60)
    assert time.monotonic() - started < 5


def test_delete_whose_answer_was_lost_is_done(server: UnrulyServer, container: Container) -> None:
    """The second try finds nothing, which is what was wanted."""
    server.on("DELETE", "/artifacts/a", Answer(drop=True), error(404, "not_found"))
    container.artifact("a").delete()
    assert len(server.calls) == 2


def test_delete_of_nothing_is_told(server: UnrulyServer, container: Container) -> None:
    """Where the first answer is a 404, there was none."""
    with pytest.raises(errors.NotFoundError):
        container.artifact("a").delete()


def test_delete_with_artifacts_is_asked_for(server: UnrulyServer, container: Container) -> None:
    """`with_artifacts` is on the wire what the contract says."""
    server.on("DELETE", "/artifacts/a", Answer({"result": "success"}))
    container.artifact("a").delete(with_artifacts=True)
    assert server.calls[0].query == {"artifacts": "true"}


def test_a_deletion_that_goes_on_is_told(server: UnrulyServer, container: Container) -> None:
    """The run is hidden already: asking again would find nothing, which is not what was wanted."""
    left = {"left": {"http://train/artifacts/a_train": "No answer."}}
    server.on("DELETE", "/artifacts/a", error(503, "unavailable", detail=left), error(404, "not_found"))
    with pytest.raises(errors.UnavailableError) as caught:
        container.artifact("a").delete(with_artifacts=True)
    assert (caught.value.detail, len(server.calls)) == (left, 1)


def test_delete_gives_what_stays(server: UnrulyServer, container: Container) -> None:
    """Nothing, where a server does not tell."""
    stays = ["http://train/artifacts/a_train"]
    server.on("DELETE", "/artifacts/a", Answer({"result": "success", "kept": stays}), Answer({"result": "success"}))
    assert [container.artifact("a").delete(), container.artifact("a").delete()] == [stays, []]


def test_rename_whose_answer_was_lost_is_done(server: UnrulyServer, container: Container) -> None:
    """The second try finds nothing under the old name, and the artifact under the new one."""
    server.on("PATCH", "/artifacts/a", Answer(drop=True), error(404, "not_found"))
    server.on("GET", "/artifacts/b/status", status("completed"))
    assert container.artifact("a").rename("b").name == "b"


def test_rename_of_nothing_is_told(server: UnrulyServer, container: Container) -> None:
    """Under neither name there is one."""
    server.on("PATCH", "/artifacts/a", error(404, "not_found"))
    with pytest.raises(errors.NotFoundError):
        container.artifact("a").rename("b")


def test_cancel_gives_the_status(server: UnrulyServer, container: Container) -> None:
    """It answers what is so now."""
    server.on("POST", "/artifacts/a/cancel", status("cancelled"))
    assert container.artifact("a").cancel().phase == "cancelled"


def test_the_log_so_far(server: UnrulyServer, container: Container) -> None:
    """Without `follow` one request, from the offset."""
    server.on("GET", LOG, lambda call: Answer(b"0123456789"[int(call.query["offset"]) :]))
    assert b"".join(container.artifact("a").iter_log(4)) == b"456789"
    assert [call.path for call in server.calls] == [LOG]


def test_a_followed_log_comes_line_by_line_and_whole(server: UnrulyServer, container: Container) -> None:
    """Lines are handed on as they come; a broken connection is made anew where it stopped; nothing comes twice."""
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


def test_a_followed_log_ends_when_nobody_answers(server: UnrulyServer) -> None:
    """A server that does not come back is not waited for without end."""
    container = Container(server.url, name="t", kind="artifacts", retry_s=0)
    server.stop()
    with pytest.raises(errors.ConnectionFailedError):
        list(container.artifact("a").iter_log(follow=True, patience_s=0.2))


def test_a_metric_is_read_while_it_grows(server: UnrulyServer, container: Container) -> None:
    """Only whole lines count; the offset leads to the next one."""
    text = b"1.5 0 0.25\n2.5 1 nan\n3.5 2 0.1"
    server.on("GET", "/artifacts/a/metrics", Answer(["loss"]))
    server.on("GET", "/artifacts/a/metrics/loss/scalar", lambda call: Answer(text[int(call.query.get("offset", 0)) :]))
    artifact = container.artifact("a")
    points, offset = artifact.metric("loss")
    assert (artifact.metrics(), points[0], len(points)) == (["loss"], Point(1.5, 0, 0.25), 2)
    assert offset == text.rindex(b"\n") + 1
    assert artifact.metric("loss", offset) == ([], offset)


def test_numbers_that_json_lacks_are_never_sent(container: Container) -> None:
    """The parameter is named, as in the container's own refusal."""
    with pytest.raises(errors.InvalidError) as caught:
        container.create("a", {"rate": float("nan"), "sizes": [1, float("inf")], "epochs": 1})
    assert list(caught.value.detail) == ["rate", "sizes"]


def test_what_is_known_of_one(server: UnrulyServer, container: Container) -> None:
    """The remaining reads of the contract."""
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
