"""A pipeline of five quick steps in three containers, two of them at the same time, for runs that are disturbed."""

import json
from pathlib import Path

from dagster import (
    DagsterRunStatus,
    DefaultScheduleStatus,
    DefaultSensorStatus,
    Definitions,
    RunRequest,
    RunsFilter,
    graph,
    schedule,
    sensor,
)

from bonseyes_dagster import Pipeline, PipelineParameter, Task, concurrent_executor, tool_op

HERE = Path(__file__).parent
source = tool_op("source", project=HERE)
combine = tool_op("combine", project=HERE)
refine = tool_op("combine", project=HERE, name="refine")
judge = tool_op("judge", project=HERE)


@graph
def steps():
    """Combine two texts, refine the result, judge it."""
    combined = combine(left=source.alias("source_left")(), right=source.alias("source_right")())
    return judge(refine(left=combined))


five = Pipeline(
    name="five",
    graph=steps,
    task=Task(name="length", description="Tell the length of a text.", output="A number."),
    parameters=[
        PipelineParameter("left", to="source_left.text"),
        PipelineParameter("right", to="source_right.text"),
        PipelineParameter(
            "seconds",
            to=[f"{step}.seconds" for step in ("source_left", "source_right", "combine", "refine", "judge")],
            default=0.7,
        ),
    ],
)


def requested(folder):
    """Yield a run request for each file in a folder: its name is that of the run, its content the parameters."""
    for file in sorted((HERE / folder).glob("*.json")):
        tags = {"bonseyes/run": file.stem}
        yield RunRequest(run_key=file.stem, run_config=json.loads(file.read_text()), tags=tags)


@sensor(job=five.job, minimum_interval_seconds=1, default_status=DefaultSensorStatus.RUNNING)
def requests_to_sensor():
    """Run the requests in the folder `sensor`; Dagster requests each run key only once."""
    yield from requested("sensor")


@schedule(job=five.job, cron_schedule="* * * * *", default_status=DefaultScheduleStatus.RUNNING)
def requests_to_schedule(context):
    """Run the requests in the folder `schedule`, unless an earlier tick has launched them."""
    launched = [status for status in DagsterRunStatus if status is not DagsterRunStatus.NOT_STARTED]
    for request in requested("schedule"):
        if not context.instance.get_runs(RunsFilter(tags=request.tags, statuses=launched), limit=1):
            yield request


defs = Definitions(
    jobs=[five.job], sensors=[requests_to_sensor], schedules=[requests_to_schedule], executor=concurrent_executor
)
