"""A selection of a pipeline's ops: which parameters it takes, and which inputs nothing that is selected makes.

Dagster makes a job of its own for each selection, with the configuration schema of the whole job. `PipelineJob` gives
that job a schema which fits: parameters of ops that are left out are optional, and each input whose maker is left out
is a field, named like the targets of a `PipelineParameter`: `train.training-set`.
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
    """An input that a wire of the whole graph feeds, and that nothing feeds in the selection."""

    path: tuple[str, ...]
    name: str
    target: str
    field: dagster.Field
    is_artifact: bool

    def problem(self, value: Any) -> str | None:
        """Return what is wrong with a value, in a sentence."""
        try:
            if self.is_artifact:
                Addresses.from_settings().parse_artifact(value)
        except InvalidError as error:
            return error.message
        return None

    def set(self, config: dict[str, Any], value: Any) -> None:
        """Put a value where Dagster's configuration of the ops has it."""
        node = config
        for part in self.path:
            node = node.setdefault("ops", {}).setdefault(part, {})
        node.setdefault("inputs", {})[self.name] = value


@dataclass(frozen=True)
class Selection:
    """What is selected of a graph: the paths of its ops, such as `inner.train`, and its open inputs."""

    ops: frozenset[str]
    inputs: tuple[OpenInput, ...] = ()

    @classmethod
    def of(cls, whole: GraphDefinition, part: GraphDefinition) -> Self:
        """Return the selection that `part`, which Dagster made from `whole`, stands for."""
        return cls(frozenset(_ops(part)), tuple(_open_inputs(whole, part)))

    def run_config(self, config: dict[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
        """Add the values of open inputs to the configuration of the ops; InvalidError for one that is no artifact."""
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
    """A job that makes its configuration schema anew for a selection of its ops.

    Dagster has no public way to do so: it copies jobs, for selections and whenever definitions are assembled, by the
    private `_copy`.
    """

    make_mapping: Callable[[GraphDefinition], ConfigMapping]

    @classmethod
    def of(cls, job: JobDefinition, make_mapping: Callable[[GraphDefinition], ConfigMapping]) -> Self:
        """Turn a job into one of this class; Dagster makes jobs by the name of their class."""
        changed: Any = job
        changed.__class__ = cls
        changed.make_mapping = make_mapping
        return changed  # type: ignore[no-any-return] # what it is now

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
    # An optional input is asked for as well: to leave out what the whole graph has is for the user to say, by null.
    kind = dagster.Noneable(kind) if definition.has_default_value else kind
    description = f"{what} The selection leaves out {maker}, which makes it."
    field = dagster.Field(kind, is_required=True, description=description)
    return OpenInput(path, name, ".".join((*path, _parameter(node, name))), field, isinstance(taken, ArtifactType))


def _parameter(node: Node, name: str) -> str:
    """Return the tool's parameter that an input is for; the input's own name where there is no tool."""
    if isinstance(node.definition, ToolOp):
        parameters = node.definition.tool.description.parameters
        return next((each.name for each in parameters if python_name(each.name) == name), name)
    return name
