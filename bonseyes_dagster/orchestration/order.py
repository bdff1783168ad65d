"""What a step wants of its container: placed so that the same step, asked again, finds the same artifact."""

import contextlib
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dagster import Failure, OpExecutionContext

from bonseyes_dagster.client import Addresses, Artifact, Container
from bonseyes_dagster.description import ToolFolder
from bonseyes_dagster.errors import BonseyesError, ConflictError, InvalidError, NotFoundError
from bonseyes_dagster.model import Status
from bonseyes_dagster.orchestration import names
from bonseyes_dagster.orchestration.references import ArtifactRef
from bonseyes_dagster.settings import Settings
from bonseyes_dagster.urls import dashboard_page

__all__ = ["Order"]


class Order:
    """What this step wants of its container, and the key by which the container knows it again."""

    def __init__(
        self,
        context: OpExecutionContext,
        container: str,
        tool: ToolFolder,
        references: Mapping[str, ArtifactRef | None],
    ) -> None:
        step = _step_name(context)
        settings = Settings.from_environ()
        self._addresses = Addresses.from_settings(settings)
        self._container = container
        self._name = names.artifact_name(names.run_name(context.run), step)
        # Where people find the artifact: the dashboard's page, behind the gateway.
        self.page = settings.gateway_url + dashboard_page(container, self._name)
        self.key = f"{context.run_id}/{step}"
        self.reuse = context.run.tags.get(names.REUSE_TAG, "true") != "false"
        self.output_type = tool.description.output_type
        self.parameters: dict[str, Any] = {name: ref.url for name, ref in references.items() if ref is not None}
        self.files: dict[str, Path] = {}
        self._take_config(context.op_config or {}, tool)
        self.stop = threading.Event()

    @property
    def container(self) -> Container:
        """Return the container's client, wherever the container is now: it may be started anew elsewhere."""
        return Container(self._addresses.base_url(self._container), name=self._container, kind="artifacts", retry_s=0)

    @property
    def artifact(self) -> Artifact:
        """Return the handle of the artifact, whether it exists or not."""
        return self.container.artifact(self._name)

    def _take_config(self, config: Mapping[str, Any], tool: ToolFolder) -> None:
        for parameter in tool.description.parameters:
            value = config.get(parameter.name)
            if value is None:
                continue
            if parameter.type == "file" and not value.lower().startswith(("http://", "https://")):
                self.files[parameter.name] = _local_file(parameter.name, value)
            else:
                self.parameters[parameter.name] = value

    def place(self) -> None:
        """Create the artifact unless it is there; one that a former attempt left unfinished is made again."""
        former = self._former()
        if former is not None and former.is_final and former.phase != "completed":
            self._delete()
        try:
            self._create()
        except (ConflictError, InvalidError) as error:
            if former is None and not isinstance(error, ConflictError):
                raise
            raise Failure(
                description=f"{self.artifact.url} exists, and was not made by this step with these parameters. "
                f"Delete it, or give the run another name. ({error.message})",
                allow_retries=False,
            ) from error

    def _create(self) -> None:
        self.container.create(
            self.artifact.name,
            self.parameters,
            dict(self.files),
            idempotency_key=self.key,
            reuse=self.reuse,
        )

    def _former(self) -> Status | None:
        try:
            return self.artifact.status()
        except NotFoundError:
            return None

    def _delete(self) -> None:
        with contextlib.suppress(NotFoundError):
            self.artifact.delete()

    def cancel(self) -> None:
        """Take the order back, whether it has been placed yet or not."""
        self.stop.set()
        with contextlib.suppress(BonseyesError):
            self.artifact.cancel()


def _step_name(context: OpExecutionContext) -> str:
    mapping_key = context.get_mapping_key()
    step = str(context.op_handle)
    return f"{step}.{mapping_key}" if mapping_key else step


def _local_file(parameter: str, value: str) -> Path:
    path = Path(value).expanduser()
    if not path.is_file():
        raise Failure(f"{parameter}: there is no file {path.absolute()} where the run executes.", allow_retries=False)
    return path
