"""The sample tool as a user adds it to a project, behind each of the two gateways."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bonseyes_dagster.docker.engine import docker
from tests.contract.serving import SAMPLE, Server
from tests.docker.running_project import RunningProject
from tests.system.embedded import embedded

__all__ = ["behind_embedded_gateway", "behind_nginx"]

# One folder, and one block in each of the compose files, as docs/authoring.md has it.
DOCKERFILE = """
ARG BONSEYES_VERSION=latest
FROM bonseyes/tool:${BONSEYES_VERSION}
COPY containers/sample /project/containers/sample
ENV BONSEYES_TOOL=/project/containers/sample
"""
IMAGE = """
  sample:
    image: bonseyes/sample:${BONSEYES_VERSION:-latest}
    build: {context: ., dockerfile: containers/sample/Dockerfile, args: *args}
"""
SERVICE = """
  sample:
    <<: *tool
    image: bonseyes/sample:${BONSEYES_VERSION:-latest}
    environment:
      BONSEYES_CONTAINER: sample
      BONSEYES_UPLOAD_LIMIT_BYTES: ${BONSEYES_UPLOAD_LIMIT_BYTES}
      BONSEYES_THREADS: ${BONSEYES_THREADS}
    volumes: ["sample:/volume"]
"""
VOLUME = "\n  sample:\n"
PIPELINES = "\n  # --- The pipelines"
# The host that requests name which are written byte by byte.
HOSTS = {"BONSEYES_ALLOWED_HOSTS": "x"}


@contextmanager
def behind_embedded_gateway(folder: Path, **settings: str) -> Iterator[Server]:
    """Yield the sample of a project that `bonseyes up` runs."""
    with embedded(folder / "project") as project:
        shutil.copytree(SAMPLE, project.folder / "containers" / "sample")
        project.up(**HOSTS, **settings)
        yield Server(url=f"{project.url}/containers/sample")


@contextmanager
def behind_nginx(folder: Path, **settings: str) -> Iterator[Server]:
    """Yield the sample of a project that `bonseyes up --docker` runs, from its own images."""
    version = "contract"
    with RunningProject(folder / "project", BONSEYES_VERSION=version, **HOSTS, **settings) as project:
        shutil.copytree(SAMPLE, project.folder / "containers" / "sample")
        (project.folder / "containers" / "sample" / "Dockerfile").write_text(DOCKERFILE)
        build, deploy = project.folder / "docker-compose-build.yml", project.folder / "docker-compose.yml"
        build.write_text(build.read_text() + IMAGE)
        before, pipelines, after = deploy.read_text().partition(PIPELINES)
        deploy.write_text(before + SERVICE + pipelines + after + VOLUME)
        try:
            for command in ("check", "build"):
                done = project.call(command)
                assert done.returncode == 0, done.stdout + done.stderr
            project.up()
            yield Server(url=f"{project.url}/containers/sample")
        finally:
            project.clean()
            images = docker(
                "image", "ls", "--format={{.Repository}}:{{.Tag}}", f"--filter=reference=bonseyes/*:{version}"
            )
            docker("image", "rm", *images.split())
