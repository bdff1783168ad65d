"""The jobs that runs.py launches. Their ops do nothing, sleep or wait. The executor is ours or Dagster's default."""

# No `from __future__ import annotations`: Dagster reads the types of contexts.
import time

from dagster import Definitions, GraphDefinition, graph, multi_or_in_process_executor, op

from bonseyes_dagster.execution.threads.executor import concurrent_executor
from bonseyes_dagster.execution.threads.interruption import interruptible_wait


@op
def begin() -> int:
    """Do nothing."""
    return 0


@op
def step(number: int) -> int:
    """Do nothing."""
    return number


@op
def nap() -> None:
    """Sleep."""
    time.sleep(0.5)


@op
def wait() -> None:
    """Wait until the run is cancelled, as our ops do."""
    interruptible_wait(600)


@graph
def chain() -> None:
    """Seven ops, one after another."""
    number = begin()
    for index in range(6):
        number = step.alias(f"step_{index}")(number)


@graph
def single() -> None:
    """One op."""
    begin()


@graph
def naps() -> None:
    """Twenty ops of half a second."""
    for index in range(20):
        nap.alias(f"nap_{index}")()


@graph
def patient() -> None:
    """One op that waits."""
    wait()


GRAPHS: list[GraphDefinition] = [chain, single, naps, patient]

definitions = Definitions(
    jobs=[
        *(g.to_job(name=g.name, executor_def=concurrent_executor) for g in GRAPHS),
        *(g.to_job(name=f"{g.name}_stock", executor_def=multi_or_in_process_executor) for g in GRAPHS),
    ]
)
