"""What travels between ops: a reference to an artifact, typed by what the artifact is, never its bytes."""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

from dagster import (
    DagsterEventType,
    DagsterInvariantViolationError,
    DagsterType,
    InitResourceContext,
    InputContext,
    IOManager,
    MetadataValue,
    OutputContext,
    TypeCheck,
    dagster_type_loader,
    io_manager,
)

from bonseyes_dagster import urls
from bonseyes_dagster.client.addresses import Addresses

__all__ = ["ArtifactRef", "ArtifactType", "ReferenceIOManager", "artifact_type", "reference_io_manager"]

_KEY = "reference"


@dataclass(frozen=True, kw_only=True)
class ArtifactRef:
    """One artifact of one container. `type` is its output type, `digest` the sha256 of its manifest."""

    container: str
    name: str
    type: str
    digest: str | None = None
    size: int | None = None

    @property
    def url(self) -> str:
        """Return the location-independent URL."""
        return urls.canonical(self.container, self.name)


class ArtifactType(DagsterType):
    """A Dagster type whose values are references to artifacts of one type, written as URLs in run config."""

    def __init__(self, type_name: str) -> None:
        self.artifact_type = type_name
        super().__init__(
            name=re.sub(r"[^A-Za-z0-9_]", "_", type_name),
            type_check_fn=self._check,
            typing_type=ArtifactRef,
            loader=_loader(type_name),
            description=f"A reference to an artifact of type {type_name}.",
        )

    def _check(self, _context: Any, value: object) -> TypeCheck:
        if value is None:  # an optional parameter that nothing is wired into
            return TypeCheck(success=True)
        if not isinstance(value, ArtifactRef):
            return TypeCheck(success=False, description=f"{value!r} is no reference to an artifact.")
        if value.type != self.artifact_type:
            return TypeCheck(success=False, description=f"{value.url} is a {value.type}, not a {self.artifact_type}.")
        return TypeCheck(success=True)


@cache
def artifact_type(type_name: str) -> ArtifactType:
    """Return the Dagster type of an artifact type such as `com.bonseyes.dataset`; one object for each."""
    return ArtifactType(type_name)


def _loader(type_name: str) -> Any:
    @dagster_type_loader(str)
    def load(context: Any, url: str) -> ArtifactRef:
        # The tool checks the artifact's real type when it is asked to use it.
        container, name = Addresses.from_settings().parse_artifact(url)
        return ArtifactRef(container=container, name=name, type=type_name)

    return load


class ReferenceIOManager(IOManager):
    """Passes references on, kept in the run's own event log: no file, no pickle, and re-execution finds them.

    Plain JSON values of other ops are passed likewise.
    """

    def handle_output(self, context: OutputContext, obj: object) -> None:
        """Write the reference down in the HANDLED_OUTPUT event."""
        kept = {"artifact": asdict(obj)} if isinstance(obj, ArtifactRef) else {"value": obj}
        try:
            json.dumps(kept, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise DagsterInvariantViolationError(
                f"Between ops travel references to artifacts and plain JSON values, not {type(obj).__name__}."
            ) from error
        context.add_output_metadata({_KEY: MetadataValue.json({**kept, "mapping_key": context.mapping_key})})

    def load_input(self, context: InputContext) -> object:
        """Read the reference from the event of the step that made it, in whichever run that was."""
        output = context.upstream_output
        if output is None:
            raise DagsterInvariantViolationError(f"Nothing is wired into the input {context.name!r}.")
        kept = self._find(context, output)
        return ArtifactRef(**kept["artifact"]) if "artifact" in kept else kept["value"]

    def _find(self, context: InputContext, output: OutputContext) -> Mapping[str, Any]:
        records = context.instance.all_logs(output.run_id, of_type=DagsterEventType.HANDLED_OUTPUT)
        for record in reversed(records):
            event = record.dagster_event
            if event is None or event.step_key != output.step_key:
                continue
            data: Any = event.event_specific_data
            kept: Any = data.metadata[_KEY].value if _KEY in data.metadata else {}
            if data.output_name == output.name and kept.get("mapping_key", "") == output.mapping_key:
                return kept  # type: ignore[no-any-return] # as handle_output wrote it
        raise DagsterInvariantViolationError(
            f"The run {output.run_id} has no record of what the step {output.step_key} made; launch a new run."
        )


@io_manager
def reference_io_manager(_context: InitResourceContext) -> ReferenceIOManager:
    """The IO manager of every pipeline."""
    return ReferenceIOManager()
