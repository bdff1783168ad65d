"""Dagster's launcher that gives each run a container, for a project that shares DAGSTER_HOME with these containers.

`BONSEYES_RUN_LAUNCHER=docker` has dagster.yaml name it, with what run_container.py says. To DockerRunLauncher it adds:
a run has one process, because each locks the run's record (run_record.py), whatever the number of containers; the
command holds no password; an engine behind a proxy; errors that callers know. run_watch.py sees to runs whose
container is gone, and to containers whose run is over.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any, Self

import docker
from dagster import DagsterRun, DagsterRunStatus, Field, StringSource
from dagster_docker import DockerRunLauncher
from docker.errors import APIError, DockerException
from requests import RequestException

from bonseyes_dagster.execution.containers.dagster_internals import (
    CheckRunHealthResult,
    ConfigurableClassData,
    DagsterLaunchFailedError,
    LaunchRunContext,
    ResumeRunContext,
    WorkerStatus,
)
from bonseyes_dagster.execution.containers.run_container import API_VERSION, LABEL, RUN_ID_LABEL, command
from bonseyes_dagster.execution.launching.run_protocol import default_socket, records_folder
from bonseyes_dagster.execution.runs.run_end import cancel_run, close_steps, fail_run_that_took_too_long
from bonseyes_dagster.execution.runs.run_lease import was_launched
from bonseyes_dagster.execution.runs.run_record import read_record

__all__ = ["ContainerRunLauncher"]

_TIMEOUT_S = 60


class ContainerRunLauncher(DockerRunLauncher):
    """See the module."""

    def __init__(
        self, engine_url: str | None = None, inst_data: ConfigurableClassData | None = None, **options: Any
    ) -> None:
        self._engine_url = engine_url
        super().__init__(inst_data, **options)

    @classmethod
    def config_type(cls) -> Any:
        """Describe the configuration: the superclass's and `engine_url`."""
        inherited: Any = super().config_type()  # type: ignore[no-untyped-call]
        where = Field(StringSource, is_required=False, description="Where the engine listens; DOCKER_HOST without it.")
        return {**inherited, "engine_url": where}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]) -> Self:
        """Make one from dagster.yaml."""
        return cls(inst_data=inst_data, **config_value)

    @property
    def records(self) -> Path:
        """Return where the processes of runs keep their records."""
        return records_folder(default_socket(self._instance.root_directory))

    def _get_client(self, container_context: Any = None) -> Any:
        if self._engine_url is None:
            return docker.from_env(version=API_VERSION, timeout=_TIMEOUT_S)
        return docker.DockerClient(base_url=self._engine_url, version=API_VERSION, timeout=_TIMEOUT_S)

    @contextmanager
    def engine(self) -> Iterator[Any]:
        """Yield a client of the engine."""
        client = self._get_client()
        try:
            yield client
        finally:
            client.close()

    def containers(self, run_id: str | None = None) -> list[dict[str, Any]]:
        """Return what the engine lists of the containers of runs, or of one run."""
        with self.engine() as client:
            listed = client.api.containers(all=True, filters={"label": LABEL})
        return [each for each in listed if run_id is None or each["Labels"].get(RUN_ID_LABEL) == run_id]

    # --- launching and resuming

    def launch_run(self, context: LaunchRunContext) -> None:
        """Start the run's container."""
        self.start(context.dagster_run, is_resumed=False)

    def resume_run(self, context: ResumeRunContext) -> None:
        """Start another container for a run whose old one is gone."""
        if was_launched(self._instance, context.dagster_run.run_id):
            self.start(context.dagster_run, is_resumed=True)

    def start(self, run: DagsterRun, *, is_resumed: bool) -> None:
        """Start a container, unless the run has a process; raise DagsterLaunchFailedError when the engine does not."""
        if read_record(self.records, run.run_id)[1]:
            return
        image: str = self._get_docker_image(run.job_code_origin)  # type: ignore[no-untyped-call]
        argv = command(run.run_id, is_resumed=is_resumed)
        try:
            self._launch_container_with_command(run, image, argv)  # type: ignore[no-untyped-call]
        except (DockerException, RequestException) as error:
            sentence = f"The run's container cannot be started: {_sentence(error)}"
            raise DagsterLaunchFailedError(sentence) from error  # type: ignore[no-untyped-call]

    # --- ending

    def terminate(self, run_id: str) -> bool:
        """Ask a run to stop; what does not within the grace period is killed by whoever watches over the containers."""
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            return False
        is_failed = run.status is DagsterRunStatus.CANCELING and fail_run_that_took_too_long(self._instance, run)
        if run.status is not DagsterRunStatus.CANCELING:
            self._instance.report_run_canceling(run)
        is_told = self.send("SIGTERM", self.containers(run_id))
        if not is_told and not read_record(self.records, run_id)[1]:
            self._end(run)
        # The run monitoring fails a run once more that it hears to be terminated.
        return not is_failed

    def _end(self, run: DagsterRun) -> None:
        final = self._instance.get_run_by_id(run.run_id)
        if final is not None and not final.is_finished:
            cancel_run(self._instance, final)
        elif final is not None and not final.is_success:
            close_steps(self._instance, final, "The run's process is gone.")

    def send(self, signal: str, listed: list[dict[str, Any]]) -> bool:
        """Send a signal to those containers that run; say whether there were any."""
        is_told = False
        with self.engine() as client:
            for each in listed:
                if each["State"] == "running":
                    with _unless_it_is_gone():
                        client.api.kill(each["Id"], signal)
                        is_told = True
        return is_told

    def remove(self, container: str) -> None:
        """Remove a container."""
        with self.engine() as client, _unless_it_is_gone():
            client.api.remove_container(container, force=True)

    # --- looking

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Tell whether the run has a process, or is being given one: only one of its containers has to live."""
        if read_record(self.records, run.run_id)[1]:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        states = [each["State"] for each in self.containers(run.run_id)]
        if "running" in states:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        current = self._instance.get_run_by_id(run.run_id)
        if current is not None and current.is_finished:
            return CheckRunHealthResult(WorkerStatus.SUCCESS)
        if not states and not was_launched(self._instance, run.run_id):
            # The watch ends it when it had a process with a record.
            return CheckRunHealthResult(WorkerStatus.RUNNING, "no launcher was asked for this run")
        return CheckRunHealthResult(WorkerStatus.NOT_FOUND, f"containers: {', '.join(states) or 'none'}")


@contextmanager
def _unless_it_is_gone() -> Iterator[None]:
    """Let pass that a container has ended, is being removed or was, since it was listed."""
    try:
        yield
    except APIError as error:
        if error.status_code not in (HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT):
            raise


def _sentence(error: Exception) -> str:
    return str(getattr(error, "explanation", None) or error)
