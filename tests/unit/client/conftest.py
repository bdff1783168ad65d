"""Fixtures of the client's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bonseyes_dagster.client import Container
from tests.unit.client.scripted_server import ScriptedServer, scripted_server


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    """A real HTTP server with scripted answers."""
    with scripted_server() as server:
        yield server


@pytest.fixture
def container(server: ScriptedServer) -> Container:
    """A tool's container on that server."""
    return Container(server.url, name="training", kind="artifacts", retry_s=5.0)
