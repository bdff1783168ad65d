"""A pipeline of one step with the sample tool's parameters, so that every answer about a run can be provoked."""

from typing import Any

from dagster import Definitions, graph

from bonseyes_dagster import Pipeline, PipelineParameter, Task, tool_op

make = tool_op("sample", name="make")


@graph
def making() -> Any:
    """Make one artifact of the sample."""
    return make()


sample_runs = Pipeline(
    name="sample-runs",
    graph=making,
    task=Task(name="sample", description="Write files.", output="The files."),
    parameters=[PipelineParameter(each.name, to=f"make.{each.name}") for each in make.tool.description.parameters],
    executor="concurrent",
)

defs = Definitions(jobs=[sample_runs.job])
