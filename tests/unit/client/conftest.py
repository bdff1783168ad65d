"""What the client's tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bonseyes_dagster.client import Container
from tests.unit.client.unruly_server import UnrulyServer, unruly_server


@pytest.fixture
def server() -> Iterator[UnrulyServer]:
    """A real HTTP server that does as it is told."""
    with unruly_server() as server:
        yield server


@pytest.fixture
def container(server: UnrulyServer) -> Container:
    """A tool's container on that server."""
    return Container(server.url, name="training", kind="artifacts", retry_s=5.0)
