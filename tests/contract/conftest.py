"""The servers that the contract tests run on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import pytest

from tests.contract.projects import SampleProject, behind_embedded_gateway, behind_nginx, pipeline_container
from tests.contract.serving import SAMPLE, TWIN_RUNS, Server, image_argv, memory_argv, serving, tool_argv

# Dagster takes a while to start, and a run takes longer than an artifact.
PIPELINE = pytest.param("pipeline", marks=[pytest.mark.slow, pytest.mark.timeout(240)])
IMAGE = pytest.param("image", marks=pytest.mark.docker)
# Building and starting take longer than tests may.
IN_DOCKER = [pytest.mark.docker, pytest.mark.timeout(900)]
DOCKER = [pytest.param("docker tool", marks=IN_DOCKER), pytest.param("docker pipeline", marks=IN_DOCKER)]
SETTINGS = {"BONSEYES_UPLOAD_LIMIT_BYTES": str(64 << 20), "BONSEYES_THREADS": "16"}
KINDS = ["memory artifacts", "memory runs", "tool", PIPELINE, IMAGE, "embedded project", *DOCKER]


@pytest.fixture(scope="package", params=KINDS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A real uWSGI server of each implementation; all tests share it, so each test makes its own names."""
    if request.param.startswith("docker "):
        project: SampleProject = request.getfixturevalue("docker_sample")
        yield project.tool if request.param == "docker tool" else project.pipeline
        return
    with _SERVERS[request.param](tmp_path_factory.mktemp("server")) as found:
        yield found


@pytest.fixture(scope="package")
def docker_sample(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SampleProject]:
    """The sample tool and the pipeline over it in one project in Docker, for both of which it is started once."""
    with behind_nginx(tmp_path_factory.mktemp("docker"), **SETTINGS) as project:
        yield project


def _memory(folder: Path) -> AbstractContextManager[Server]:
    return serving(memory_argv, folder, {"SAMPLE_KIND": "artifacts", **SETTINGS})


def _memory_runs(folder: Path) -> AbstractContextManager[Server]:
    environ = {"SAMPLE_KIND": "runs", **SETTINGS}
    return serving(memory_argv, folder, environ, collection="runs", differences=TWIN_RUNS)


def _tool(argv_of: Callable[[str], list[str]], folder: Path) -> AbstractContextManager[Server]:
    environ = {"BONSEYES_TOOL": str(SAMPLE), "BONSEYES_VOLUME": str(folder / "volume"), **SETTINGS}
    return serving(argv_of, folder, environ)


_SERVERS: dict[str, Callable[[Path], AbstractContextManager[Server]]] = {
    "memory artifacts": _memory,
    "memory runs": _memory_runs,
    "tool": partial(_tool, tool_argv),
    "pipeline": partial(pipeline_container, **SETTINGS),
    "image": partial(_tool, image_argv),
    "embedded project": partial(behind_embedded_gateway, **SETTINGS),
}
