"""The implementations that the contract's suites run on."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from tests.contract.projects import PIPELINE, STEP, SampleProject, behind_embedded_gateway, behind_nginx
from tests.contract.serving import (
    PIPELINE_RUNS,
    SAMPLE,
    TWIN_RUNS,
    Server,
    image_argv,
    memory_argv,
    pipeline_argv,
    serving,
    tool_argv,
)
from tests.flow.tiny_project import TinyDagster, running_dagster, running_tools

# Dagster takes a while to start, and a run takes longer than an artifact.
PIPELINE_CONTAINER = pytest.param("pipeline", marks=[pytest.mark.slow, pytest.mark.timeout(240)])
IMAGE = pytest.param("image", marks=pytest.mark.docker)
# Building and starting take longer than tests may.
IN_DOCKER = [pytest.mark.docker, pytest.mark.timeout(900)]
COMPOSED = [pytest.param("composed tool", marks=IN_DOCKER), pytest.param("composed pipeline", marks=IN_DOCKER)]
SETTINGS = {"BONSEYES_UPLOAD_LIMIT_BYTES": str(64 << 20), "BONSEYES_THREADS": "16"}
KINDS = ["memory artifacts", "memory runs", "tool", PIPELINE_CONTAINER, IMAGE, "embedded project", *COMPOSED]


@pytest.fixture(scope="package", params=KINDS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A real uWSGI server of each implementation, shared by all tests: each makes names of its own."""
    with _SERVERS[request.param](request, tmp_path_factory.mktemp("server")) as found:
        yield found


@pytest.fixture(scope="package")
def sample_dagster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TinyDagster]:
    """The sample tool, and Dagster with a pipeline over it; the pipeline's container is not among them."""
    root = tmp_path_factory.mktemp("dagster")
    folder = root / "project"
    shutil.copytree(SAMPLE, folder / "containers" / "sample")
    shutil.copy(PIPELINE, folder)
    with running_tools(root, ("sample",), folder) as project, running_dagster(project) as dagster:
        yield dagster


@pytest.fixture(scope="package")
def composed_sample(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SampleProject]:
    """The sample tool and the pipeline over it in a project in Docker."""
    with behind_nginx(tmp_path_factory.mktemp("composed"), **SETTINGS) as project:
        yield project


def _memory(_: pytest.FixtureRequest, folder: Path) -> AbstractContextManager[Server]:
    return serving(memory_argv, folder, {"SAMPLE_KIND": "artifacts", **SETTINGS})


def _memory_runs(_: pytest.FixtureRequest, folder: Path) -> AbstractContextManager[Server]:
    environ = {"SAMPLE_KIND": "runs", **SETTINGS}
    return serving(memory_argv, folder, environ, collection="runs", differences=TWIN_RUNS)


def _tool(_: pytest.FixtureRequest, folder: Path) -> AbstractContextManager[Server]:
    return serving(tool_argv, folder, _tool_environ(folder))


def _image(_: pytest.FixtureRequest, folder: Path) -> AbstractContextManager[Server]:
    return serving(image_argv, folder, _tool_environ(folder))


def _tool_environ(folder: Path) -> dict[str, str]:
    return {"BONSEYES_TOOL": str(SAMPLE), "BONSEYES_VOLUME": str(folder / "volume"), **SETTINGS}


def _pipeline(request: pytest.FixtureRequest, folder: Path) -> AbstractContextManager[Server]:
    dagster: TinyDagster = request.getfixturevalue("sample_dagster")
    environ = {
        **dagster.environment,
        "BONSEYES_PIPELINE": "sample-runs",
        "BONSEYES_VOLUME": str(folder / "volume"),
        **SETTINGS,
    }
    return serving(pipeline_argv, folder, environ, collection="runs", step=STEP, differences=PIPELINE_RUNS)


def _embedded(_: pytest.FixtureRequest, folder: Path) -> AbstractContextManager[Server]:
    return behind_embedded_gateway(folder, **SETTINGS)


@contextmanager
def _composed_tool(request: pytest.FixtureRequest, _: Path) -> Iterator[Server]:
    yield request.getfixturevalue("composed_sample").tool


@contextmanager
def _composed_pipeline(request: pytest.FixtureRequest, _: Path) -> Iterator[Server]:
    yield request.getfixturevalue("composed_sample").pipeline


_SERVERS: dict[str, Callable[[pytest.FixtureRequest, Path], AbstractContextManager[Server]]] = {
    "memory artifacts": _memory,
    "memory runs": _memory_runs,
    "tool": _tool,
    "pipeline": _pipeline,
    "image": _image,
    "embedded project": _embedded,
    "composed tool": _composed_tool,
    "composed pipeline": _composed_pipeline,
}
