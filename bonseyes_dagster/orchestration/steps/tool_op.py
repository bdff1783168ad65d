"""From a tool's `tool.yml` to a Dagster op that asks its container for one artifact."""

import keyword
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dagster import In, OpDefinition, OpExecutionContext, Out

from bonseyes_dagster import tags
from bonseyes_dagster.description import ToolFolder, find_tools, load_tool
from bonseyes_dagster.errors import SettingsError
from bonseyes_dagster.model import python_name
from bonseyes_dagster.orchestration import names
from bonseyes_dagster.orchestration.steps.references import artifact_type
from bonseyes_dagster.orchestration.steps.schema import config_field
from bonseyes_dagster.orchestration.steps.step import run_step

__all__ = ["ToolOp", "project_folder", "tool_op"]

RETRIES = 4


class ToolOp(OpDefinition):
    """An op that has its tool's container make an artifact; `container` and `tool` say which and how."""

    def __init__(self, *, container: str, tool: ToolFolder, name: str, retries: int) -> None:
        self.container = container
        self.tool = tool
        self.retries = retries
        description = tool.description
        super().__init__(
            name=name,
            description=description.description,
            ins=_ins(tool),
            outs={"result": Out(artifact_type(description.output_type))},
            compute_fn=self._compute,
            config_schema={
                parameter.name: config_field(parameter, container)
                for parameter in description.parameters
                if parameter.type != "artifact"
            },
            tags={tags.CONTAINER_TAG: container, tags.OUTPUT_TYPE_TAG: description.output_type},
        )
        # Dagster sorts inputs by name; positional arguments in a graph are to be in the order of `tool.yml`.
        self._positional_inputs = list(_ins(tool))

    def _compute(self, context: OpExecutionContext, inputs: Mapping[str, Any]) -> Iterator[Any]:
        references = {
            parameter.name: inputs[python_name(parameter.name)]
            for parameter in self.tool.description.parameters
            if parameter.type == "artifact"
        }
        yield from run_step(
            context, container=self.container, tool=self.tool, references=references, retries=self.retries
        )


def tool_op(
    container: str,
    *,
    name: str | None = None,
    project: Path | None = None,
    retries: int = RETRIES,
) -> ToolOp:
    """Return an op for the tool of `container`, whose `tool.yml` is looked up in the project's folder.

    The op's config are the tool's parameters, its inputs the artifact parameters (`training-set` is the argument
    `training_set`), its output an `ArtifactRef`. `name` is the op's own, the container's by default; each run's
    artifact is `{run}_{op}`. A step is tried `retries` times more when its container was interrupted or did not answer;
    what a tool or its parameters fail by is not retried. Raises SettingsError when there is no such tool or its
    `tool.yml` is wrong.
    """
    folder = project or project_folder(sys._getframe(1).f_globals.get("__file__"))
    tools = find_tools(folder)
    if container not in tools:
        there = ", ".join(sorted(tools)) or "none"
        raise SettingsError(f"There is no tool {container!r} in the project {folder}; there are: {there}.")
    return ToolOp(
        container=container,
        tool=load_tool(tools[container]),
        name=name or _op_name(container),
        retries=retries,
    )


def project_folder(caller: str | None = None) -> Path:
    """Return BONSEYES_PROJECT, else the first folder above the file `caller` that holds tools, else this one."""
    if os.environ.get("BONSEYES_PROJECT"):
        return Path(os.environ["BONSEYES_PROJECT"]).absolute()
    for folder in Path(caller).absolute().parents if caller else ():
        if (folder / "containers").is_dir() or (folder / "components").is_dir():
            return folder
    return Path.cwd()


def _op_name(container: str) -> str:
    name = names.job_name(container)
    return f"{name}_" if keyword.iskeyword(name) else name  # such as `import`


def _ins(tool: ToolFolder) -> dict[str, In]:
    ins = {}
    for parameter in tool.description.parameters:
        if parameter.type == "artifact":
            options = {} if parameter.required else {"default_value": None}
            ins[python_name(parameter.name)] = In(artifact_type(parameter.artifact_type or ""), **options)
    return ins
