"""The servers that the contract tests run on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import pytest

from tests.contract.projects import behind_embedded_gateway, behind_nginx
from tests.contract.serving import SAMPLE, Server, image_argv, memory_argv, serving, tool_argv

IMAGE = pytest.param("image", marks=pytest.mark.docker)
# Building and starting take longer than tests may.
DOCKER = pytest.param("docker project", marks=[pytest.mark.docker, pytest.mark.timeout(900)])
SETTINGS = {"BONSEYES_UPLOAD_LIMIT_BYTES": str(64 << 20), "BONSEYES_THREADS": "16"}
KINDS = ["memory artifacts", "memory runs", "tool", IMAGE, "embedded project", DOCKER]


@pytest.fixture(scope="package", params=KINDS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A real uWSGI server of each implementation; all tests share it, so each test makes its own names."""
    with _SERVERS[request.param](tmp_path_factory.mktemp("server")) as found:
        yield found


def _memory(collection: str, folder: Path) -> AbstractContextManager[Server]:
    return serving(memory_argv, folder, {"SAMPLE_KIND": collection, **SETTINGS}, collection=collection)


def _tool(argv_of: Callable[[str], list[str]], folder: Path) -> AbstractContextManager[Server]:
    environ = {"BONSEYES_TOOL": str(SAMPLE), "BONSEYES_VOLUME": str(folder / "volume"), **SETTINGS}
    return serving(argv_of, folder, environ)


_SERVERS: dict[str, Callable[[Path], AbstractContextManager[Server]]] = {
    "memory artifacts": partial(_memory, "artifacts"),
    "memory runs": partial(_memory, "runs"),
    "tool": partial(_tool, tool_argv),
    "image": partial(_tool, image_argv),
    "embedded project": partial(behind_embedded_gateway, **SETTINGS),
    "docker project": partial(behind_nginx, **SETTINGS),
}
