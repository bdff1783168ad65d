"""Dagster's multiprocess executor as `Pipeline(executor="multiprocess")` takes it: each op in a process of its own.

Its processes are forked from one that has loaded Dagster: Dagster's default starts Python anew for each op, which
takes seconds of processor time. The configuration is that of the concurrent executor. A run in somebody else's process
holds a lease here as there (run_lease.py).
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from types import FunctionType
from typing import Any

from dagster import DagsterEvent, ExecutorDefinition, Field, InitExecutorContext, Int, Noneable, executor

from bonseyes_dagster.execution.runs.run_lease import RunLease
from bonseyes_dagster.execution.threads.dagster_internals import (
    ActiveExecution,
    ExecutionPlan,
    PlanOrchestrationContext,
    RetryMode,
    dagster_multiprocess,
    get_retries_config,
    get_tag_concurrency_limits_config,
    multiple_process_executor_requirements,
)
from bonseyes_dagster.execution.threads.executor import take_run

__all__ = ["SeparateExecutor", "separate_executor"]


class SeparateExecutor(dagster_multiprocess.MultiprocessExecutor):
    """Dagster's executor, with a lease of the run and a stop that needs no signal."""

    def execute(self, plan_context: PlanOrchestrationContext, execution_plan: ExecutionPlan) -> Iterator[DagsterEvent]:
        """Yield the events of the run's steps as they happen; raise when the run was interrupted."""
        with ExitStack() as stack:
            held, run = yield from take_run(plan_context, stack)
            if not held.is_guest:
                yield from super().execute(plan_context, execution_plan)
                return
            context = PlanOrchestrationContext(
                plan_data=plan_context.plan_data._replace(dagster_run=run),
                log_manager=plan_context.log,
                executor=self,
                output_capture=plan_context.output_capture,
                resume_from_failure=plan_context.resume_from_failure,
            )
            execution = _stoppable(held)
            # Not by a change of Dagster's module: a notebook may execute two runs at the same time.
            names = {**vars(dagster_multiprocess), "ActiveExecution": execution}
            execute = FunctionType(dagster_multiprocess.MultiprocessExecutor.execute.__code__, names)
            yield from execute(self, context, execution_plan)


def _stoppable(held: RunLease) -> type[ActiveExecution]:
    """Return Dagster's bookkeeping, which also ends when the lease says that the run is to stop."""

    class StoppableExecution(ActiveExecution):
        def check_for_interrupts(self) -> bool:
            if super().check_for_interrupts():
                held.cancel_unlaunched()
                return True
            return held.receive_stop()

    return StoppableExecution


def separate_executor(preloaded: Sequence[str]) -> ExecutorDefinition:
    """Return the executor; the process from which those of ops are forked has imported the modules `preloaded`."""

    @executor(
        name="multiprocess",
        config_schema={
            "max_concurrent": Field(
                Noneable(Int),
                default_value=None,
                description="How many ops of a run may run at the same time; one for each processor by default.",
            ),
            "retries": get_retries_config(),  # type: ignore[no-untyped-call]
            "tag_concurrency_limits": get_tag_concurrency_limits_config(),  # type: ignore[no-untyped-call]
        },
        requirements=multiple_process_executor_requirements(),
    )
    def definition(init_context: InitExecutorContext) -> SeparateExecutor:
        """Run each op in a process of its own."""
        config: Any = init_context.executor_config
        return SeparateExecutor(
            retries=RetryMode.from_config(config["retries"]) or RetryMode.ENABLED,
            max_concurrent=config.get("max_concurrent"),
            tag_concurrency_limits=config.get("tag_concurrency_limits"),
            start_method="forkserver",
            explicit_forkserver_preload=["dagster", *preloaded],
        )

    return definition
