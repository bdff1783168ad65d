"""`python -m benchmarks.fan_in_run SHAPE EXECUTOR COUNT`: executes one run and prints its seconds, for fan_in.py."""

# No `from __future__ import annotations`: Dagster reads the types of contexts.
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from dagster import (
    DagsterInstance,
    DynamicOut,
    DynamicOutput,
    Field,
    GraphDefinition,
    JobDefinition,
    OpExecutionContext,
    execute_job,
    graph,
    in_process_executor,
    multiprocess_executor,
    op,
)
from dagster._core.definitions.reconstruct import build_reconstructable_job

from bonseyes_dagster.execution.processes.run_worker import open_worker_instance
from bonseyes_dagster.execution.storage.instance import write_instance
from bonseyes_dagster.execution.threads.executor import concurrent_executor
from bonseyes_dagster.orchestration.steps.references import reference_io_manager

EXECUTORS: dict[str, dict[str, Any]] = {
    "ours": {"executor_def": concurrent_executor, "resource_defs": {"io_manager": reference_io_manager}},
    "in_process": {"executor_def": in_process_executor},
    "multiprocess": {"executor_def": multiprocess_executor},
}


@op
def give() -> int:
    """Do nothing."""
    return 1


@op
def step(number: int) -> int:
    """Do nothing."""
    return number


@op
def total(numbers: list) -> int:  # type: ignore[type-arg] # Dagster reads it
    """Add all inputs."""
    return sum(numbers)


@op(out=DynamicOut(int), config_schema={"count": Field(int, default_value=0)})
def spread(context: OpExecutionContext) -> Any:
    """Yield `count` outputs."""
    for index in range(context.op_config["count"]):
        yield DynamicOutput(1, mapping_key=f"n{index}")


@graph
def mapped() -> None:
    """Map an op over a dynamic output and collect the results."""
    total(spread().map(step).collect())


def wired(count: int) -> GraphDefinition:
    """Return a graph that wires `count` ops into one op."""

    @graph(name="wired")
    def made() -> None:
        total([give.alias(f"give_{index}")() for index in range(count)])

    return made


def make_job(shape: str, kind: str, count: int) -> JobDefinition:
    """Return the job. The processes of steps also call this function."""
    made = mapped if shape == "mapped" else wired(int(count))
    return made.to_job(name="fan_in", **EXECUTORS[kind])


def main(shape: str, kind: str, count: str) -> None:
    """Run the job in a new home and print the seconds."""
    job = build_reconstructable_job(
        "benchmarks.fan_in_run", "make_job", (shape, kind, int(count)), reconstructor_working_directory=str(Path.cwd())
    )
    config = {"ops": {"spread": {"config": {"count": int(count)}}}} if shape == "mapped" else {}
    with tempfile.TemporaryDirectory() as folder:
        write_instance(Path(folder), launcher="stock")
        with DagsterInstance.from_config(folder) as plain, open_worker_instance(plain) as instance:
            started = time.monotonic()
            with execute_job(job, instance, run_config=config) as result:
                seconds = time.monotonic() - started
                if not result.success or result.output_for_node("total") != int(count):
                    raise SystemExit("The run did not succeed.")
    print(seconds)


if __name__ == "__main__":
    main(*sys.argv[1:])
