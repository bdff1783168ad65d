"""Makes a Dagster op from a tool's `tool.yml`. The op requests one artifact from the tool's container."""

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
    """An op whose artifact a container makes: `container` is its name, `tool` the folder with its `tool.yml`."""

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
        # Dagster sorts inputs by name. In a graph, positional arguments have the order of `tool.yml`.
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
    """Return an op for the tool of `container`, whose `tool.yml` is in the project's folder.

    The tool's parameters are the op's config. Its artifact parameters are the op's inputs (`training-set` becomes the
    argument `training_set`). The op's output is an `ArtifactRef`. `name` is the name of the op, by default that of the
    container. The artifact of each run is called `{run}_{op}`. A step is retried up to `retries` times if its container
    was interrupted or did not answer. A failure of the tool, or a wrong parameter, is not retried. Raises SettingsError
    if there is no such tool or its `tool.yml` is wrong.
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
    """Return BONSEYES_PROJECT, else the nearest folder above the file `caller` with tools, else the working folder."""
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
