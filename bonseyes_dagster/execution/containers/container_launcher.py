"""A run launcher that starts a container for each run. The project and these containers share DAGSTER_HOME.

With `BONSEYES_RUN_LAUNCHER=docker`, dagster.yaml names this launcher and has its configuration from run_container.py.
It adds to DockerRunLauncher:
- A run has one process, whatever the number of its containers: each process locks the run's record (process_record.py).
- The command line has no password.
- The engine may be behind a proxy.
- Errors of the engine become DagsterLaunchFailedError.

run_watch.py handles runs whose container is gone, and containers whose run is over.
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
from bonseyes_dagster.execution.runs.process_record import read_record
from bonseyes_dagster.execution.runs.run_end import cancel_run, close_steps, fail_run_that_took_too_long
from bonseyes_dagster.execution.runs.run_lease import was_launched

__all__ = ["ContainerRunLauncher"]

_TIMEOUT_S = 60


class ContainerRunLauncher(DockerRunLauncher):
    """Starts, stops and checks the containers of runs."""

    def __init__(
        self, engine_url: str | None = None, inst_data: ConfigurableClassData | None = None, **options: Any
    ) -> None:
        self._engine_url = engine_url
        super().__init__(inst_data, **options)

    @classmethod
    def config_type(cls) -> Any:
        """Describe the configuration: the superclass's and `engine_url`."""
        inherited: Any = super().config_type()  # type: ignore[no-untyped-call]
        description = "URL of the Docker engine; DOCKER_HOST by default."
        return {**inherited, "engine_url": Field(StringSource, is_required=False, description=description)}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]) -> Self:
        """Create the launcher from dagster.yaml."""
        return cls(inst_data=inst_data, **config_value)

    @property
    def records(self) -> Path:
        """Return the folder of the records of runs' processes."""
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
        """Return the engine's list of the containers of all runs, or of one run."""
        with self.engine() as client:
            listed = client.api.containers(all=True, filters={"label": LABEL})
        return [each for each in listed if run_id is None or each["Labels"].get(RUN_ID_LABEL) == run_id]

    # --- launching and resuming

    def launch_run(self, context: LaunchRunContext) -> None:
        """Start the run's container."""
        self.start(context.dagster_run, is_resumed=False)

    def resume_run(self, context: ResumeRunContext) -> None:
        """Start a new container for a run whose old container is gone."""
        if was_launched(self._instance, context.dagster_run.run_id):
            self.start(context.dagster_run, is_resumed=True)

    def start(self, run: DagsterRun, *, is_resumed: bool) -> None:
        """Start a container, unless the run has a process; raise DagsterLaunchFailedError if the engine fails."""
        if read_record(self.records, run.run_id)[1]:
            return
        image: str = self._get_docker_image(run.job_code_origin)  # type: ignore[no-untyped-call]
        argv = command(run.run_id, is_resumed=is_resumed)
        try:
            self._launch_container_with_command(run, image, argv)  # type: ignore[no-untyped-call]
        except (DockerException, RequestException) as error:
            message = f"The run's container cannot be started: {_explanation(error)}"
            raise DagsterLaunchFailedError(message) from error  # type: ignore[no-untyped-call]

    # --- ending

    def terminate(self, run_id: str) -> bool:
        """Send a run SIGTERM; run_watch.py kills the run if it does not stop within the grace period."""
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            return False
        is_failed = run.status is DagsterRunStatus.CANCELING and fail_run_that_took_too_long(self._instance, run)
        if run.status is not DagsterRunStatus.CANCELING:
            self._instance.report_run_canceling(run)
        was_sent = self.send("SIGTERM", self.containers(run_id))
        if not was_sent and not read_record(self.records, run_id)[1]:
            self._end(run)
        # On True, the run monitoring would fail the run a second time.
        return not is_failed

    def _end(self, run: DagsterRun) -> None:
        final = self._instance.get_run_by_id(run.run_id)
        if final is not None and not final.is_finished:
            cancel_run(self._instance, final)
        elif final is not None and not final.is_success:
            close_steps(self._instance, final, "The run's process is gone.")

    def send(self, signal: str, listed: list[dict[str, Any]]) -> bool:
        """Send a signal to the running containers; tell whether there were any."""
        was_sent = False
        with self.engine() as client:
            for each in listed:
                if each["State"] == "running":
                    with _ignore_gone_container():
                        client.api.kill(each["Id"], signal)
                        was_sent = True
        return was_sent

    def remove(self, container: str) -> None:
        """Remove a container."""
        with self.engine() as client, _ignore_gone_container():
            client.api.remove_container(container, force=True)

    # --- checking

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Tell whether the run has a process or a running container; one of its containers is enough."""
        if read_record(self.records, run.run_id)[1]:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        states = [each["State"] for each in self.containers(run.run_id)]
        if "running" in states:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        current = self._instance.get_run_by_id(run.run_id)
        if current is not None and current.is_finished:
            return CheckRunHealthResult(WorkerStatus.SUCCESS)
        if not states and not was_launched(self._instance, run.run_id):
            # The watch ends this run if it had a process with a record.
            return CheckRunHealthResult(
                WorkerStatus.RUNNING, "The state of the run is not known: no launcher started it."
            )
        return CheckRunHealthResult(
            WorkerStatus.NOT_FOUND, f"The run has no process; states of its containers: {', '.join(states) or 'none'}."
        )


@contextmanager
def _ignore_gone_container() -> Iterator[None]:
    """Ignore the engine's error if a container has ended or was removed after it was listed."""
    try:
        yield
    except APIError as error:
        if error.status_code not in (HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT):
            raise


def _explanation(error: Exception) -> str:
    return str(getattr(error, "explanation", None) or error)
