"""Rename an artifact, for every implementation: everything keeps working, and the old name is free."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests

from tests.contract.serving import Difference, Server
from tests.contract.test_artifact_routes import error_of
from tests.waiting import until


def rename(server: Server, name: str, new_name: Any) -> requests.Response:
    """Send a rename."""
    return server.request("PATCH", name, json={"name": new_name})


@pytest.fixture
def tool(server: Server) -> Server:
    """Return a server of artifacts."""
    server.skip_for(Difference.FIXED_NAME)
    return server


def test_everything_is_found_under_the_new_name(tool: Server) -> None:
    """Data, digest and parameters are unchanged; the log shows the rename; the old name is a 404."""
    name, new_name = tool.made(text="a renamed text"), tool.new_name()
    before = tool.get(f"{name}/status").json()
    log = tool.get(f"{name}/log").text
    answer = rename(tool, name, new_name)
    assert answer.status_code == 200, answer.text
    assert answer.json() == {"result": "success", "name": new_name, "url": answer.headers["Location"]}
    assert requests.get(answer.headers["Location"], timeout=30).json()["status"]["name"] == new_name
    assert tool.get(f"{new_name}/status").json() == {**before, "name": new_name}
    assert tool.get(f"{new_name}/data").text == "a renamed text"
    assert tool.get(f"{new_name}/input-parameters").json()["text"] == "a renamed text"
    new_log = tool.get(f"{new_name}/log").text
    assert new_log.startswith(log)
    assert new_log.removeprefix(log).endswith(f" Renamed from {name} to {new_name}.\n")
    assert tool.get(f"{name}/status").status_code == 404
    names = tool.get(f"/{tool.collection}").json()
    assert new_name in names and name not in names


def test_the_old_name_and_its_key_are_free(tool: Server) -> None:
    """A new artifact gets both, and is not mistaken for the renamed one."""
    key = {"Idempotency-Key": tool.new_name()}
    name, new_name = tool.create(text="old", headers=key), tool.new_name()
    tool.wait(name)
    assert tool.get(name).json()["idempotency_key"] == key["Idempotency-Key"]
    assert rename(tool, name, new_name).status_code == 200
    assert tool.get(new_name).json()["idempotency_key"] is None
    tool.create(name=name, text="new", headers=key)
    tool.wait(name)
    assert (tool.get(f"{name}/data").text, tool.get(f"{new_name}/data").text) == ("new", "old")


def test_reused_from_follows_the_rename(tool: Server) -> None:
    """`reused_from` shows the new name; the logs stay separate; an artifact made later is not affected."""
    text = f"followed {tool.new_name()}"
    name, new_name, copy = tool.made(text=text), tool.new_name(), tool.new_name()
    body = {"name": copy, "parameters": {"text": text}}
    tool.request("POST", f"/{tool.collection}?reuse=true", json=body)
    log = tool.get(f"{copy}/log").text
    assert rename(tool, name, new_name).status_code == 200
    assert tool.get(f"{copy}/status").json()["reused_from"] == new_name
    assert tool.get(f"{copy}/log").text == log
    again = tool.made(name=name, text=text)
    assert rename(tool, again, tool.new_name()).status_code == 200
    assert tool.get(f"{copy}/status").json()["reused_from"] == new_name


def test_a_taken_name_is_refused(tool: Server) -> None:
    """Neither artifact changes; an artifact may keep its own name."""
    first, second = tool.made(text="first"), tool.made(text="second")
    error_of(rename(tool, first, second), 409, "name_taken")
    assert rename(tool, first, first).status_code == 200
    assert (tool.get(f"{first}/data").text, tool.get(f"{second}/data").text) == ("first", "second")


def test_one_of_many_concurrent_renames_gets_the_name(tool: Server) -> None:
    """The others keep their names."""
    made, new_name = [tool.made() for _ in range(4)], tool.new_name()
    with ThreadPoolExecutor(4) as pool:
        statuses = list(pool.map(lambda name: rename(tool, name, new_name).status_code, made))
    assert sorted(statuses) == [200, 409, 409, 409]
    names = tool.get(f"/{tool.collection}").json()
    assert len({new_name, *made} & set(names)) == 4


def test_only_final_artifacts_can_be_renamed(tool: Server) -> None:
    """A step may wait for an artifact under its name."""
    running, queued = tool.create(steps=200, pause=0.1), tool.create()
    until(lambda: tool.get(f"{running}/status").json()["phase"] == "running")
    for name in (queued, running):
        error_of(rename(tool, name, tool.new_name()), 409, "not_final")
    for name in (queued, running):
        tool.request("POST", f"{name}/cancel")
        tool.wait(name)
        assert rename(tool, name, tool.new_name()).status_code == 200


@pytest.mark.parametrize("new_name", ["", "a/b", "a..b", "-a", "x" * 129, 7, None, ["a"]])
def test_bad_new_names_are_invalid(tool: Server, new_name: Any) -> None:
    """422 with the name in the detail."""
    name = tool.made()
    assert "name" in error_of(rename(tool, name, new_name), 422, "invalid")["detail"]
    assert tool.get(f"{name}/status").status_code == 200


def test_other_bodies_are_refused(tool: Server) -> None:
    """No name, more than a name, not an object, not JSON, another type, an empty body."""
    name = tool.made()
    error_of(tool.request("PATCH", name, json={}), 422, "invalid")
    error_of(tool.request("PATCH", name, json={"name": "a", "size": 1}), 422, "invalid")
    error_of(tool.request("PATCH", name, json=["a"]), 422, "invalid")
    headers = {"Content-Type": "application/json"}
    error_of(tool.request("PATCH", name, data=b"{", headers=headers), 400, "bad_request")
    error_of(tool.request("PATCH", name, data=b"name=a"), 415, "unsupported_media_type")
    error_of(rename(tool, tool.new_name(), tool.new_name()), 404, "not_found")


def test_a_run_cannot_be_renamed(server: Server) -> None:
    """Its artifacts carry its name."""
    if Difference.FIXED_NAME not in server.differences:
        pytest.skip("An artifact can be renamed.")
    error_of(rename(server, server.made(), server.new_name()), 405, "method_not_allowed")
