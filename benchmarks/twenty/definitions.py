"""A project whose twenty tools do nothing, so its runs show only their own cost. pipelines.py makes and runs it."""

from pathlib import Path

from dagster import Definitions, graph, multiprocess_executor

from bonseyes_dagster import Pipeline, Task, concurrent_executor, tool_op

HERE = Path(__file__).parent
boxes = [tool_op(f"box-{number:02d}", name=f"box_{number:02d}", project=HERE) for number in range(20)]


@graph
def chain():
    """Seven artifacts, one after another."""
    made = boxes[0]()
    for box in boxes[1:7]:
        made = box(after=made)
    return made


@graph
def single():
    """One artifact."""
    return boxes[0]()


@graph
def naps():
    """Twenty artifacts at once."""
    for box in boxes:
        box()


task = Task(name="nothing", description="Measure the cost of a run that does nothing.", output="Nothing.")
sleep = {f"box_{number:02d}.seconds": 0.5 for number in range(20)}
pipelines = [
    Pipeline(name="chain", graph=chain, task=task),
    Pipeline(name="single", graph=single, task=task),
    Pipeline(name="naps", graph=naps, task=task, fixed=sleep),
]

defs = Definitions(
    jobs=[
        *(pipeline.job for pipeline in pipelines),
        # The same ops with Dagster's default executor.
        chain.to_job(name="chain_stock", executor_def=multiprocess_executor),
    ],
    executor=concurrent_executor,
)
