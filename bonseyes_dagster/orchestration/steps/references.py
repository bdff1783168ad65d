"""The values that ops pass to each other: typed references to artifacts, and plain values of other ops."""

import re
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from dagster import (
    DagsterInstance,
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
from bonseyes_dagster.execution.threads.stored_values import OutputPlace, load_value, store_value
from bonseyes_dagster.orchestration.steps.output_records import METADATA_KEY, OutputRecords

__all__ = ["ArtifactRef", "ArtifactType", "ReferenceIOManager", "artifact_type", "reference_io_manager"]


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
        if value is None:  # an optional input that is not connected
            return TypeCheck(success=True)
        if not isinstance(value, ArtifactRef):
            return TypeCheck(success=False, description=f"{value!r} is not a reference to an artifact.")
        if value.type != self.artifact_type:
            return TypeCheck(success=False, description=f"{value.url} is a {value.type}, not a {self.artifact_type}.")
        return TypeCheck(success=True)


@cache
def artifact_type(type_name: str) -> ArtifactType:
    """Return the Dagster type of an artifact type such as `com.bonseyes.dataset`; always the same object."""
    return ArtifactType(type_name)


def _loader(type_name: str) -> Any:
    @dagster_type_loader(str)
    def load(context: Any, url: str) -> ArtifactRef:
        # The tool checks the real type of the artifact before it uses it.
        container, name = Addresses.from_settings().parse_artifact(url)
        return ArtifactRef(container=container, name=name, type=type_name)

    return load


class ReferenceIOManager(IOManager):
    """Stores the outputs of ops, so that a resumed run and a re-execution find them.

    References are in the run's event log. stored_values.py describes where other values are.
    """

    def __init__(self) -> None:
        self._records = OutputRecords()
        # Parents that are known to be older than the run that reads them.
        self._parents: set[str] = set()

    def handle_output(self, context: OutputContext, obj: object) -> None:
        """Store a value, and add a record of it to the HANDLED_OUTPUT event."""
        place = _place(context)
        if type(obj) is ArtifactRef:
            kept = {"artifact": asdict(obj)}
        else:
            kept = store_value(obj, place, _storage(context.step_context.instance))
        context.add_output_metadata({METADATA_KEY: MetadataValue.json({**kept, "mapping_key": context.mapping_key})})
        self._records.add(place, kept)

    def load_input(self, context: InputContext) -> object:
        """Return the value that the upstream step made, in this run or in an earlier one."""
        output = context.upstream_output
        if output is None:
            raise DagsterInvariantViolationError(f"The input {context.name!r} is not connected.")
        place = _place(output)
        step = context._step_context
        reader = step.step.key if step is not None and step.run_id == place.run_id else ""
        if step is not None and not reader:
            self._check_parent(context.instance, step.run_id, place.run_id)
        kept = self._records.find(context.instance, place, reader)
        if kept is None:
            raise DagsterInvariantViolationError(f"Run {place.run_id} has no record of {place}. Launch a new run.")
        if "artifact" in kept:
            return ArtifactRef(**kept["artifact"])
        return load_value(kept, place, _storage(context.instance))

    def _check_parent(self, instance: DagsterInstance, run_id: str, parent_id: str) -> None:
        """Raise if a new run has the parent's id: ids are made from names, and the name of a deleted run is free."""
        if parent_id in self._parents:
            return
        run, parent = (instance.get_run_record_by_id(each) for each in (run_id, parent_id))
        if run and parent and parent.create_timestamp > run.create_timestamp:
            raise DagsterInvariantViolationError(f"Run {parent_id} was deleted. Launch a new run.")
        self._parents.add(parent_id)


def _place(output: OutputContext) -> OutputPlace:
    return OutputPlace(output.run_id, output.step_key, output.name, output.mapping_key)


def _storage(instance: DagsterInstance) -> Path:
    return Path(instance.storage_directory())


@io_manager
def reference_io_manager(_context: InitResourceContext) -> ReferenceIOManager:
    """Return the IO manager of every pipeline."""
    return ReferenceIOManager()
