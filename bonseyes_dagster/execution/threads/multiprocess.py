"""Dagster's multiprocess executor for `Pipeline(executor="multiprocess")`: each op runs in its own process.

The processes are forked from a process that has loaded Dagster. Dagster's default starts Python again for each op,
which takes seconds of processor time. The configuration is the same as the concurrent executor's. As with that
executor, a run whose process no launcher started holds a lease (run_lease.py).
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
from bonseyes_dagster.execution.threads.executor import acquire_run

__all__ = ["SeparateExecutor", "separate_executor"]


class SeparateExecutor(dagster_multiprocess.MultiprocessExecutor):
    """Dagster's executor, with the lease of the run, and a stop that needs no signal."""

    def execute(self, plan_context: PlanOrchestrationContext, execution_plan: ExecutionPlan) -> Iterator[DagsterEvent]:
        """Yield the events of the run's steps as they happen; raise if the run was interrupted."""
        with ExitStack() as stack:
            run_lease, run = yield from acquire_run(plan_context, stack)
            if run_lease.is_dedicated:
                yield from super().execute(plan_context, execution_plan)
                return
            context = PlanOrchestrationContext(
                plan_data=plan_context.plan_data._replace(dagster_run=run),
                log_manager=plan_context.log,
                executor=self,
                output_capture=plan_context.output_capture,
                resume_from_failure=plan_context.resume_from_failure,
            )
            execution = _stoppable(run_lease)
            # Do not patch Dagster's module instead: a notebook may execute two runs at the same time.
            names = {**vars(dagster_multiprocess), "ActiveExecution": execution}
            execute = FunctionType(dagster_multiprocess.MultiprocessExecutor.execute.__code__, names)
            yield from execute(self, context, execution_plan)


def _stoppable(run_lease: RunLease) -> type[ActiveExecution]:
    """Return a class of Dagster's bookkeeping that also stops when the lease receives a stop."""

    class StoppableExecution(ActiveExecution):
        def check_for_interrupts(self) -> bool:
            if super().check_for_interrupts():
                run_lease.cancel_unlaunched()
                return True
            return run_lease.receive_stop()

    return StoppableExecution


def separate_executor(preloaded: Sequence[str]) -> ExecutorDefinition:
    """Return the executor; the processes of ops are forked from one that has imported the modules `preloaded`."""

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
        """Run each op in its own process."""
        config: Any = init_context.executor_config
        return SeparateExecutor(
            retries=RetryMode.from_config(config["retries"]) or RetryMode.ENABLED,
            max_concurrent=config.get("max_concurrent"),
            tag_concurrency_limits=config.get("tag_concurrency_limits"),
            start_method="forkserver",
            explicit_forkserver_preload=["dagster", *preloaded],
        )

    return definition
