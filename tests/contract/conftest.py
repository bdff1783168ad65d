"""The implementations that the contract's suites run on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract.serving import SAMPLE, Server, image_argv, memory_argv, serving, tool_argv

IMAGE = pytest.param("image", marks=pytest.mark.docker)


@pytest.fixture(scope="package", params=["memory artifacts", "memory runs", "tool", IMAGE])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A real uWSGI server of each implementation, shared by all tests: each makes names of its own."""
    folder = tmp_path_factory.mktemp("server")
    common = {"BONSEYES_UPLOAD_LIMIT_BYTES": str(64 << 20), "BONSEYES_THREADS": "16"}
    if request.param in ("tool", "image"):
        environ = {"BONSEYES_TOOL": str(SAMPLE), "BONSEYES_VOLUME": str(folder / "volume"), **common}
        with serving(tool_argv if request.param == "tool" else image_argv, folder, environ) as found:
            yield found
        return
    collection = request.param.removeprefix("memory ")
    with serving(memory_argv, folder, {"SAMPLE_KIND": collection, **common}, collection=collection) as found:
        yield found
