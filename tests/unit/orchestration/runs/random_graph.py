"""Definitions of a random graph for the campaign of provenance; `graph.json` beside the file says which."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dagster import (
    AssetMaterialization,
    Definitions,
    DependencyDefinition,
    DynamicOut,
    DynamicOutput,
    GraphDefinition,
    NodeInvocation,
    OpDefinition,
    OpExecutionContext,
    Out,
    Output,
    in_process_executor,
    op,
)
from dagster._core.definitions.dependency import DynamicCollectDependencyDefinition

from bonseyes_dagster import Pipeline, Task
from bonseyes_dagster.description import load_tool
from bonseyes_dagster.orchestration.steps.references import ArtifactRef
from bonseyes_dagster.orchestration.steps.tool_op import ToolOp

TYPE = "com.bonseyes.dataset"
INPUTS = ("a", "b", "c")
TOOL: dict[str, Any] = {
    "output_type": TYPE,
    "parameters": {name: {"type": "artifact", "artifact-type": TYPE} for name in INPUTS},
}


class NotedOp(ToolOp):
    """An op that makes a reference by itself, and notes in `made.jsonl` what it made of what."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        tool = load_tool(folder / "containers" / "noted")
        super().__init__(container="noted", tool=tool, name="noted", retries=0)

    def _compute(self, context: OpExecutionContext, inputs: Mapping[str, Any]) -> Iterator[Any]:
        digest = note(self.folder, context, [ref.digest for ref in inputs.values() if ref is not None])
        yield AssetMaterialization(asset_key=["made", context.op_handle.name], metadata={"digest": digest})
        yield Output(ArtifactRef(container="noted", name="x", type=TYPE, digest=digest))


def note(folder: Path, context: Any, sources: list[str]) -> str:
    """Fail if `fail.json` names the step, or else note it and return a digest that only this execution has."""
    key = context.get_step_execution_context().step.key
    if key in json.loads((folder / "fail.json").read_text()):
        raise ValueError("To fail was asked for.")
    digest = hashlib.sha256(json.dumps([context.run_id, key, sources]).encode()).hexdigest()
    with (folder / "made.jsonl").open("a") as file:
        file.write(json.dumps({"run": context.run_id, "key": key, "digest": digest}) + "\n")
    return digest


def plain_ops(folder: Path) -> list[OpDefinition]:
    """Return the ops that no tool is behind: one that finds what others are mapped over, one that collects."""

    @op(out=DynamicOut())
    def find(context: OpExecutionContext) -> Iterator[DynamicOutput[ArtifactRef]]:
        digest = note(folder, context, [])
        for key in json.loads((folder / "keys.json").read_text()):
            yield DynamicOutput(ArtifactRef(container="noted", name="x", type=TYPE, digest=digest), mapping_key=key)

    @op(out=Out())
    def merge(context: OpExecutionContext, all: list[Any]) -> ArtifactRef:
        digest = note(folder, context, [ref.digest for ref in all])
        return ArtifactRef(container="noted", name="x", type=TYPE, digest=digest)

    return [find, merge]


def make_pipeline(folder: Path) -> Pipeline:
    """Return the pipeline of `graph.json`: for each node the nodes that it takes."""
    graph: dict[str, list[str]] = json.loads((folder / "graph.json").read_text())
    dependencies: dict[Any, Any] = {}
    for name, sources in graph.items():
        if name == "find":
            dependencies[NodeInvocation("find")] = {}
        elif name == "merge":
            dependencies[NodeInvocation("merge")] = {"all": DynamicCollectDependencyDefinition(sources[0], "result")}
        else:
            wires = zip(INPUTS, sources, strict=False)
            dependencies[NodeInvocation("noted", alias=name)] = {each: DependencyDefinition(it) for each, it in wires}
    defs = [NotedOp(folder), *(each for each in plain_ops(folder) if each.name in graph)]
    definition = GraphDefinition(name="random", node_defs=defs, dependencies=dependencies)
    return Pipeline(name="random", graph=definition, task=Task(name="t", description="t", output="t"))


def make_definitions(folder: Path) -> Definitions:
    """Return the definitions that Dagster loads in `folder`."""
    return Definitions(jobs=[make_pipeline(folder).job], executor=in_process_executor)
