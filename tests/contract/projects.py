"""The sample tool, and a pipeline over it, as a user adds them to a project: without a gateway, and behind each."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bonseyes_dagster.docker.engine import docker
from tests.contract.serving import PIPELINE_RUNS, SAMPLE, Server, pipeline_argv, serving
from tests.docker.running_project import RunningProject
from tests.flow.tiny_project import running_dagster, running_tools
from tests.system.embedded import embedded

__all__ = ["SampleProject", "behind_embedded_gateway", "behind_nginx", "pipeline_container"]

PIPELINE = Path(__file__).parent / "pipeline" / "definitions.py"
# The only step of the pipeline.
STEP = "make"

# One folder, and one block in each of the Compose files, as in docs/authoring.md.
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
PIPELINE_SERVICE = """
  sample-runs:
    <<: *dagster
    command: [python, -m, bonseyes_dagster.pipeline, --bind, "sample-runs.front:80"]
    environment:
      <<: *project
      BONSEYES_CONTAINER: sample-runs
      BONSEYES_PIPELINE: sample-runs
      BONSEYES_VOLUME: /dagster/volumes/sample-runs
      BONSEYES_UPLOAD_LIMIT_BYTES: ${BONSEYES_UPLOAD_LIMIT_BYTES}
      BONSEYES_PROCESSES: "1"
      BONSEYES_THREADS: ${BONSEYES_THREADS}
    networks: {front: {aliases: [sample-runs.front]}, tools: {}, dagster: {}}
    healthcheck: {<<: *health, test: [CMD, bash, -c, *look, look, sample-runs.front/80, /healthz]}
"""
VOLUME = "\n  sample:\n"
PIPELINES = "\n  # --- The pipelines"
DAGSTER = "\n  # --- Dagster"
# The Host header of requests that tests write as bytes.
HOSTS = {"BONSEYES_ALLOWED_HOSTS": "x"}


@contextmanager
def pipeline_container(folder: Path, **settings: str) -> Iterator[Server]:
    """Yield the container of the pipeline; the sample, a code server and a run server are behind it."""
    project = folder / "project"
    shutil.copytree(SAMPLE, project / "containers" / "sample")
    shutil.copy(PIPELINE, project)
    with running_tools(folder, ("sample",), project) as tools, running_dagster(tools) as dagster:
        environ = {
            **dagster.environment,
            "BONSEYES_PIPELINE": "sample-runs",
            "BONSEYES_VOLUME": str(folder / "runs"),
            **settings,
        }
        with serving(pipeline_argv, folder, environ, collection="runs", step=STEP, differences=PIPELINE_RUNS) as server:
            yield server


@contextmanager
def behind_embedded_gateway(folder: Path, **settings: str) -> Iterator[Server]:
    """Yield the sample of a project that `bonseyes up` runs."""
    with embedded(folder / "project") as project:
        shutil.copytree(SAMPLE, project.folder / "containers" / "sample")
        project.up(**HOSTS, **settings)
        yield Server(url=f"{project.url}/containers/sample")


@dataclass(frozen=True)
class SampleProject:
    """Where the sample tool is, and the pipeline over it."""

    tool: Server
    pipeline: Server


@contextmanager
def behind_nginx(folder: Path, **settings: str) -> Iterator[SampleProject]:
    """Yield the sample and its pipeline of a project that `bonseyes up --docker` runs, from its own images."""
    version = "contract"
    with RunningProject(folder / "project", BONSEYES_VERSION=version, **HOSTS, **settings) as project:
        _add_sample(project.folder)
        try:
            for command in ("check", "build"):
                done = project.call(command)
                assert done.returncode == 0, done.stdout + done.stderr
            project.up()
            tool = Server(url=f"{project.url}/containers/sample")
            url = f"{project.url}/containers/sample-runs"
            yield SampleProject(tool, Server(url=url, collection="runs", step=STEP, differences=PIPELINE_RUNS))
        finally:
            project.clean()
            images = docker(
                "image", "ls", "--format={{.Repository}}:{{.Tag}}", f"--filter=reference=bonseyes/*:{version}"
            )
            docker("image", "rm", *images.split())


def _add_sample(folder: Path) -> None:
    shutil.copytree(SAMPLE, folder / "containers" / "sample")
    (folder / "containers" / "sample" / "Dockerfile").write_text(DOCKERFILE)
    build, deploy, definitions = (
        folder / name for name in ("docker-compose-build.yml", "docker-compose.yml", "definitions.py")
    )
    build.write_text(build.read_text() + IMAGE)
    text = deploy.read_text().replace(PIPELINES, SERVICE + PIPELINES).replace(DAGSTER, PIPELINE_SERVICE + DAGSTER)
    deploy.write_text(text + VOLUME)
    # Each part ends with its own `defs`. Dagster wants one at the top level, so that the first is in a list.
    parts = [definitions.read_text(), "all_defs = [defs]", PIPELINE.read_text()]
    definitions.write_text("\n".join([*parts, "defs = Definitions.merge(*all_defs, defs)\n"]))
