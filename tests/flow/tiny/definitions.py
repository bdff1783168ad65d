"""A small project for tests. Its model is the length of one archive; another archive shows whether it is right."""

from pathlib import Path

from dagster import Definitions, graph

from bonseyes_dagster import Pipeline, PipelineParameter, Task, concurrent_executor, inbox_sensor, tool_op

HERE = Path(__file__).parent
load = tool_op("load", project=HERE)
learn = tool_op("learn", project=HERE)
judge = tool_op("judge", project=HERE)


@graph
def learning():
    """Load, learn, judge."""
    trained = learn(load.alias("load_train")())
    return judge(trained, load.alias("load_test")())


tiny = Pipeline(
    name="tiny-one",
    graph=learning,
    task=Task(name="length", description="Tell the length of an archive.", output="A number."),
    parameters=[
        PipelineParameter("train", to="load_train.archive", label="Training archive"),
        PipelineParameter("test", to="load_test.archive"),
        PipelineParameter("epochs", to="learn.epochs", default=3),
        PipelineParameter("pause", to="learn.pause"),
        PipelineParameter("fail", to="learn.fail"),
        PipelineParameter("kind", to="learn.kind"),
    ],
    fixed={"judge.criteria": [{"metric": "accuracy", "minimum": 0.9}]},
)
other = Pipeline(
    name="tiny-two",
    graph=learning,
    task=tiny.task,
    parameters=[
        PipelineParameter("train", to="load_train.archive"),
        PipelineParameter("test", to="load_test.archive"),
    ],
)

defs = Definitions(jobs=[tiny.job, other.job], sensors=[inbox_sensor(tiny)], executor=concurrent_executor)
