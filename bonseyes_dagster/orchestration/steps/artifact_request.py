"""A step's request to its container for one artifact. A repeated request of the same step finds the same artifact."""

import contextlib
import re
import threading
from collections.abc import Mapping
from typing import Any

from dagster import Failure, OpExecutionContext

from bonseyes_dagster import tags
from bonseyes_dagster.client import Addresses, Artifact, Container
from bonseyes_dagster.description import ToolFolder
from bonseyes_dagster.errors import BonseyesError, ConflictError, InvalidError, NotFoundError, UnavailableError
from bonseyes_dagster.execution.runs import run_names
from bonseyes_dagster.model import Status
from bonseyes_dagster.orchestration import names
from bonseyes_dagster.orchestration.steps.readable_files import ReadableFiles
from bonseyes_dagster.orchestration.steps.references import ArtifactRef
from bonseyes_dagster.settings import Settings
from bonseyes_dagster.urls import dashboard_page

__all__ = ["ArtifactRequest"]

# The format of `names.idempotency_key`: hexadecimal digits, except for the name of the step.
_KEY = re.compile(r"(?P<run>[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})/([0-9a-f]{32}/)?(?P<step>[^/]+)")
# A cancelled tool has ten seconds to end by itself.
_END_TIMEOUT_S = 20.0


class ArtifactRequest:
    """The parameters and files of one step's artifact, and the idempotency key of the step."""

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
        self._name = names.artifact_name(run_names.own_name(context.instance, context.run), step)
        # The artifact's page on the dashboard, through the gateway.
        self.page = settings.gateway_url + dashboard_page(container, self._name)
        self._step = step
        self._instance = context.instance
        self.key = names.idempotency_key(context.run, step)
        self._run_id = context.run_id
        self._log = context.log
        self.reuse = context.run.tags.get(tags.REUSE_TAG, "true") != "false"
        self.output_type = tool.description.output_type
        self.parameters: dict[str, Any] = {name: ref.url for name, ref in references.items() if ref is not None}
        self._digests = {name: ref.digest for name, ref in references.items() if ref is not None and ref.digest}
        self._readable = ReadableFiles.from_settings(settings)
        self.files: dict[str, str] = {}
        self._take_config(context.op_config or {}, tool)
        self.stop = threading.Event()

    @property
    def container(self) -> Container:
        """Return a client of the container at its current address: it may have restarted at another."""
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
                self._readable.open(parameter.name, value).close()  # fail before the container gets a request
                self.files[parameter.name] = value
            else:
                self.parameters[parameter.name] = value

    def send(self) -> None:
        """Create the artifact unless this step has created it before.

        An artifact that an earlier attempt left failed, cancelled or interrupted is deleted and created again. An
        artifact of a deleted run with this run's name is renamed. Raises Failure if anybody else made the artifact.
        """
        former = self._former()
        if former is not None:
            with contextlib.suppress(NotFoundError):  # deleted meanwhile
                self._resolve_conflict(former)
        try:
            self._create()
        except (ConflictError, InvalidError) as error:
            if former is None and not isinstance(error, ConflictError):
                raise
            raise self._refusal(error.message) from error

    def _refusal(self, reason: str) -> Failure:
        return Failure(
            description=f"{self.artifact.url} exists, and was not made by this step with these parameters. "
            f"Delete it, rename it, or give the run another name. ({reason})",
            allow_retries=False,
        )

    def _resolve_conflict(self, former: Status) -> None:
        """Delete or rename an artifact that has this artifact's name; raise Failure if it must stay."""
        info = self.artifact.info()
        if names.has_idempotency_key(info, self.key):
            if former.is_final and former.phase != "completed":
                self._delete()
            return
        maker = _maker_of(info["idempotency_key"], self._step)
        if maker is None:
            raise self._refusal("No run of this name made it.")
        if maker != self._run_id and self._instance.get_run_by_id(maker) is not None:
            raise self._refusal(f"The run {maker} made it, which has the same name.")
        self._set_aside(former)

    def _set_aside(self, former: Status) -> None:
        """Rename an artifact of a deleted run with this run's name; cancel it first, because nobody waits for it."""
        artifact = self.artifact
        if not former.is_final:
            artifact.cancel()
            if not artifact.status(_END_TIMEOUT_S).is_final:
                raise UnavailableError(f"{artifact.url}, which a deleted run of the same name made, does not end.")
        renamed = artifact.rename(_spare_name(artifact.name, str(artifact.info()["id"])))
        self._log.info(f"{artifact.url} was made by a deleted run of the same name; it is {renamed.url} now.")

    def _create(self) -> None:
        with contextlib.ExitStack() as opened:
            files = {name: opened.enter_context(self._readable.open(name, path)) for name, path in self.files.items()}
            self.container.create(
                self.artifact.name,
                self.parameters,
                files,
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

    def check_inputs(self, info: Mapping[str, Any]) -> None:
        """Raise Failure if the artifact was made from other inputs than the outputs of the earlier steps.

        A reference is a name. Somebody may have deleted or renamed the artifact and created another of that name.
        """
        inputs = (info.get("provenance") or {}).get("inputs") or {}
        for name, digest in self._digests.items():
            if inputs.get(name, {}).get("digest", digest) != digest:
                raise Failure(
                    description=f"{self.artifact.url} was made from {self.parameters[name]}, which is not the artifact "
                    "that this run refers to: another artifact has that name now. Launch a new run.",
                    allow_retries=False,
                )

    def cancel(self) -> None:
        """Cancel the artifact, and stop a request that was not sent yet."""
        self.stop.set()
        with contextlib.suppress(BonseyesError):
            self.artifact.cancel()


def _maker_of(key: object, step: str) -> str | None:
    """Return the id of the run whose step created an artifact with this key; None for any other key.

    The name of such an artifact is made from run and step. So an equal name and step mean an equal run name.
    """
    match = _KEY.fullmatch(key) if isinstance(key, str) else None
    return match["run"] if match and match["step"] == step else None


def _spare_name(name: str, artifact_id: str) -> str:
    """Return a new name for an artifact whose name a new run needs."""
    suffix = f".{artifact_id[:8]}"
    return name[: run_names.NAME_LENGTH - len(suffix)].rstrip(".") + suffix


def _step_name(context: OpExecutionContext) -> str:
    mapping_key = context.get_mapping_key()
    step = str(context.op_handle)
    return f"{step}.{mapping_key}" if mapping_key else step
