"""Checks that connected outputs and inputs of a graph have the same artifact type. `Pipeline` calls it."""

from collections.abc import Iterator
from typing import Any

from dagster import GraphDefinition, OpDefinition

from bonseyes_dagster.orchestration.dagster_internals import NodeHandle, NodeInput, NodeInputHandle, NodeOutput
from bonseyes_dagster.orchestration.steps.references import ArtifactType

__all__ = ["check_wiring"]


def check_wiring(graph: GraphDefinition) -> Iterator[str]:
    """Yield a sentence for each wire between different artifact types, in inner graphs too; it names both ends."""
    for node in graph.nodes:
        wires = graph.dependency_structure.input_to_upstream_outputs_for_node(node.name)
        for node_input, node_outputs in wires.items():
            for node_output in node_outputs:
                yield from _check_wire(node_output, node_input)
        if isinstance(node.definition, GraphDefinition):
            yield from check_wiring(node.definition)


def _check_wire(node_output: NodeOutput, node_input: NodeInput) -> Iterator[str]:
    made, maker = node_output.node.definition.resolve_output_to_origin(
        node_output.output_def.name, NodeHandle(node_output.node_name, None)
    )
    start = NodeInputHandle(node_handle=NodeHandle(node_input.node_name, None), input_name=node_input.input_name)
    for end in node_input.node.definition.resolve_input_to_destinations(start):
        taken = _input_type(node_input, end)
        if (
            isinstance(made.dagster_type, ArtifactType)
            and isinstance(taken, ArtifactType)
            and made.dagster_type != taken
        ):
            yield (
                f"{maker} makes a {made.dagster_type.artifact_type}, but it is wired into {end.input_name!r} of "
                f"{end.node_handle}, which takes a {taken.artifact_type}"
            )


def _input_type(node_input: NodeInput, end: NodeInputHandle[Any]) -> object:
    definition = node_input.node.definition
    for part in end.node_handle.path[1:]:
        assert isinstance(definition, GraphDefinition)  # it contains the next part
        definition = definition.node_named(part).definition
    assert isinstance(definition, OpDefinition)
    return definition.input_def_named(end.input_name).dagster_type
