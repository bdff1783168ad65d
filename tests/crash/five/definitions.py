"""A pipeline of five quick steps in three containers, two of them at the same time, for runs that are disturbed."""

from pathlib import Path

from dagster import Definitions, graph

from bonseyes_dagster import Pipeline, PipelineParameter, Task, concurrent_executor, tool_op

HERE = Path(__file__).parent
source = tool_op("source", project=HERE)
combine = tool_op("combine", project=HERE)
refine = tool_op("combine", project=HERE, name="refine")
judge = tool_op("judge", project=HERE)


@graph
def steps():
    """Combine two texts, refine what comes of it, judge it."""
    combined = combine(left=source.alias("source_left")(), right=source.alias("source_right")())
    return judge(refine(left=combined))


five = Pipeline(
    name="five",
    graph=steps,
    task=Task(name="length", description="Tell the length of a text.", output="A number."),
    parameters=[
        PipelineParameter("left", to="source_left.text"),
        PipelineParameter("right", to="source_right.text"),
    ],
)
defs = Definitions(jobs=[five.job], executor=concurrent_executor)
