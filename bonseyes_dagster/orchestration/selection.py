"""A selection of a pipeline's ops: its parameters and its open inputs.

An input is open if no selected op makes its value. Dagster makes a new job for each selection, with the configuration
schema of the whole job. `PipelineJob` gives that job its own schema. Parameters of ops that are not selected are
optional. Each open input is a field. It is named like a target of a `PipelineParameter`: `train.training-set`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import dagster
from dagster import ConfigMapping, GraphDefinition, JobDefinition

from bonseyes_dagster.client.addresses import Addresses
from bonseyes_dagster.errors import InvalidError
from bonseyes_dagster.model import python_name
from bonseyes_dagster.orchestration.dagster_internals import Node, NodeInput
from bonseyes_dagster.orchestration.steps.references import ArtifactType
from bonseyes_dagster.orchestration.steps.tool_op import ToolOp

__all__ = ["OpenInput", "PipelineJob", "Selection"]


@dataclass(frozen=True)
class OpenInput:
    """An input that is connected in the whole graph, but not in the selection."""

    path: tuple[str, ...]
    name: str
    target: str
    field: dagster.Field
    is_artifact: bool

    def problem(self, value: Any) -> str | None:
        """Return a sentence that says what is wrong with a value; None for a good value."""
        try:
            if self.is_artifact:
                Addresses.from_settings().parse_artifact(value)
        except InvalidError as error:
            return error.message
        return None

    def set(self, config: dict[str, Any], value: Any) -> None:
        """Set the value of this input in Dagster's configuration of the ops."""
        node = config
        for part in self.path:
            node = node.setdefault("ops", {}).setdefault(part, {})
        node.setdefault("inputs", {})[self.name] = value


@dataclass(frozen=True)
class Selection:
    """The selected ops of a graph, by path, such as `inner.train`, and the open inputs."""

    ops: frozenset[str]
    inputs: tuple[OpenInput, ...] = ()

    @classmethod
    def of(cls, whole: GraphDefinition, part: GraphDefinition) -> Self:
        """Return the selection for `part`, the graph that Dagster made from `whole` for the selected ops."""
        return cls(frozenset(_ops(part)), tuple(_open_inputs(whole, part)))

    def run_config(self, config: dict[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
        """Add the values of open inputs to the configuration of the ops.

        Raises InvalidError if the value of an artifact input is not the address of an artifact.
        """
        given = [each for each in self.inputs if values.get(each.target) is not None]
        problems = {each.target: each.problem(values[each.target]) for each in given}
        wrong = {target: problem for target, problem in problems.items() if problem}
        if wrong:
            sentences = "; ".join(f"{target}: {problem}" for target, problem in wrong.items())
            raise InvalidError(f"The inputs of the selected ops are wrong: {sentences}", detail=wrong)
        for each in given:
            each.set(config, values[each.target])
        return config


class PipelineJob(JobDefinition):
    """A job that makes a new configuration schema for each selection of its ops.

    Dagster has no public method for this. It copies jobs with the private `_copy`, for selections and when it assembles
    definitions.
    """

    make_mapping: Callable[[GraphDefinition], ConfigMapping]

    @classmethod
    def of(cls, job: JobDefinition, make_mapping: Callable[[GraphDefinition], ConfigMapping]) -> Self:
        """Change the class of a job to this one; Dagster names its own class when it makes a job."""
        changed: Any = job
        changed.__class__ = cls
        changed.make_mapping = make_mapping
        return changed  # type: ignore[no-any-return] # its class is `cls` now

    def _copy(self, **changes: Any) -> JobDefinition:
        if "graph_def" in changes:
            changes["config"] = self.make_mapping(changes["graph_def"])
        return PipelineJob.of(super()._copy(**changes), self.make_mapping)

    def as_ephemeral_job(
        self,
        resource_defs: Any,
        input_values: Any,
        op_selection: Sequence[str] | None = None,
        asset_selection: Any = None,
    ) -> JobDefinition:
        """Return the job for `execute_in_process`."""
        job = PipelineJob.of(super().as_ephemeral_job(resource_defs, input_values), self.make_mapping)
        assets = frozenset(asset_selection) if asset_selection else None
        return job.get_subset(op_selection=op_selection, asset_selection=assets)


def _ops(graph: GraphDefinition, prefix: str = "") -> Iterator[str]:
    for node in graph.nodes:
        if isinstance(node.definition, GraphDefinition):
            yield from _ops(node.definition, f"{prefix}{node.name}.")
        else:
            yield f"{prefix}{node.name}"


def _open_inputs(whole: GraphDefinition, part: GraphDefinition, path: tuple[str, ...] = ()) -> Iterator[OpenInput]:
    for node in part.nodes:
        former = whole.node_named(node.name)
        for name in node.definition.input_dict:
            if _is_fed(whole, former, name) and not _is_fed(part, node, name):
                yield _open_input(node, name, (*path, node.name), _maker(whole, former, name))
        if isinstance(node.definition, GraphDefinition) and isinstance(former.definition, GraphDefinition):
            yield from _open_inputs(former.definition, node.definition, (*path, node.name))


def _is_fed(graph: GraphDefinition, node: Node, name: str) -> bool:
    is_wired = graph.dependency_structure.has_deps(NodeInput(node, node.definition.input_dict[name]))
    return is_wired or bool(node.container_maps_input(name))


def _maker(graph: GraphDefinition, node: Node, name: str) -> str:
    node_input = NodeInput(node, node.definition.input_dict[name])
    return ", ".join(each.node_name for each in graph.dependency_structure.get_deps_list(node_input))


def _open_input(node: Node, name: str, path: tuple[str, ...], maker: str) -> OpenInput:
    definition = node.definition.input_dict[name]
    taken = definition.dagster_type
    kind = taken.loader.schema_type if taken.loader is not None else dagster.Any
    what = "A value."
    if isinstance(taken, ArtifactType):
        what = f"An artifact of type {taken.artifact_type}, as CONTAINER/NAME or http://CONTAINER/artifacts/NAME."
    # An optional input needs a value too. The whole graph has one, so only the user may leave it out, with null.
    kind = dagster.Noneable(kind) if definition.has_default_value else kind
    description = f"{what} The selection leaves out {maker}, which makes it."
    field = dagster.Field(kind, is_required=True, description=description)
    return OpenInput(path, name, ".".join((*path, _parameter(node, name))), field, isinstance(taken, ArtifactType))


def _parameter(node: Node, name: str) -> str:
    """Return the name of the tool's parameter for an input; the input's own name if the op is no tool op."""
    if isinstance(node.definition, ToolOp):
        parameters = node.definition.tool.description.parameters
        return next((each.name for each in parameters if python_name(each.name) == name), name)
    return name
