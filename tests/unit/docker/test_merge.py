"""An override file has the same effect as in `docker compose config`."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from bonseyes_dagster.docker.compose.merge import Loader, merge

BASE = """
services:
  one:
    image: me/one
    command: [serve, --port, "80"]
    environment: [A=1, B=2, HERE]
    networks: [tools]
    volumes: ["one:/volume", "two:/two", /anonymous]
    security_opt: ["no-new-privileges:true"]
    tmpfs: ["/tmp:mode=1777"]
    dns: [127.0.0.1]
    mem_limit: 1g
    read_only: true
    depends_on: [two]
    healthcheck: {test: [CMD, a], interval: 5s}
    deploy: {resources: {limits: {cpus: "1"}}}
  two: {image: me/two}
  three: {image: me/three}
volumes: {one: , two: }
"""
OVER = """
services:
  one:
    command: [other]
    environment: {B: 3, C: 4}
    networks: {front: {aliases: [one.front]}}
    volumes: ["new:/two:ro", {type: volume, source: new, target: /volume}]
    security_opt: ["no-new-privileges:true", "seccomp:unconfined"]
    tmpfs: !override ["/run"]
    dns: !override []
    mem_limit: !reset null
    read_only: !override false
    depends_on: {two: {condition: service_healthy}}
    healthcheck: {test: [CMD, b]}
    deploy: {resources: {reservations: {memory: 1g}}}
  three: !reset null
  four: {image: me/four, cpus: !override 2}
volumes: {new: }
"""
ONE = {
    "image": "me/one",
    "command": ["other"],
    "environment": {"A": "1", "B": 3, "C": 4, "HERE": None},
    "networks": {"tools": None, "front": {"aliases": ["one.front"]}},
    "volumes": [{"type": "volume", "source": "new", "target": "/volume"}, "new:/two:ro", "/anonymous"],
    "security_opt": ["no-new-privileges:true", "seccomp:unconfined"],
    "tmpfs": ["/run"],
    "dns": [],
    "read_only": False,
    "depends_on": {"two": {"condition": "service_healthy"}},
    "healthcheck": {"test": ["CMD", "b"], "interval": "5s"},
    "deploy": {"resources": {"limits": {"cpus": "1"}, "reservations": {"memory": "1g"}}},
}


def _load(text: str) -> Any:
    return yaml.load(text, Loader)


def test_override_file_is_merged_as_by_compose() -> None:
    """Mappings merge by key, volumes by path, other lists by addition. Commands and tagged values replace."""
    merged = merge(_load(BASE), _load(OVER))
    assert merged["services"]["one"] == ONE
    assert set(merged["services"]) == {"one", "two", "four"}
    assert merged["services"]["four"] == {"image": "me/four", "cpus": 2}
    assert set(merged["volumes"]) == {"one", "two", "new"}


@pytest.mark.parametrize(("text", "value"), [("!override [1]", [1]), ("!override {b: 1}", {"b": 1}), ("1", 1)])
def test_tags_in_the_only_file_change_nothing(text: str, value: Any) -> None:
    """Only a value with `!reset` disappears."""
    assert merge({}, _load(f"{{a: {text}, c: !reset [1]}}")) == {"a": value}
