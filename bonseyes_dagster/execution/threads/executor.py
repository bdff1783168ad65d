"""The concurrent executor: it runs the ready ops of a run at the same time, in threads of the run's one process.

Choose it by `Definitions(..., executor=concurrent_executor)` or `@job(executor_def=concurrent_executor)`.

Our ops wait on HTTP and need no process each. Dagster's multiprocess executor starts one for each step, which takes 3.5
CPU seconds. This module only decides where a step runs. Dagster does the rest: retries, hooks, pools, limits by tag,
dynamic and optional outputs, re-execution and resume. Ops wait through interruption.py, so that a cancelled run stops
quickly.
"""

import os
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

from dagster import (
    DagsterEvent,
    DagsterRun,
    DagsterRunStatus,
    Executor,
    ExecutorDefinition,
    Field,
    InitExecutorContext,
    Int,
    MetadataValue,
    Noneable,
    executor,
)

from bonseyes_dagster.execution.runs.run_lease import POLL_S, RunLease, RunTakenError, lease
from bonseyes_dagster.execution.runs.run_names import run_name, settle_name
from bonseyes_dagster.execution.threads.active_execution import ResumableExecution, read_progress
from bonseyes_dagster.execution.threads.compute_logs import StepComputeLogManager
from bonseyes_dagster.execution.threads.dagster_internals import (
    DagsterExecutionInterruptedError,
    EngineEventData,
    ExecuteRunWithPlanIterable,
    ExecutionPlan,
    ExecutionStep,
    InstanceConcurrencyContext,
    PlanExecutionContext,
    PlanExecutionContextManager,
    PlanOrchestrationContext,
    RetryMode,
    _handle_compute_log_setup_error,
    create_compute_log_file_key,
    get_retries_config,
    get_tag_concurrency_limits_config,
    serializable_error_info_from_exc_info,
)
from bonseyes_dagster.execution.threads.interruption import interruption_scope
from bonseyes_dagster.execution.threads.isolated_step import IsolatedStep
from bonseyes_dagster.execution.threads.mailbox import Mailbox
from bonseyes_dagster.execution.threads.process_state import ProcessState
from bonseyes_dagster.execution.threads.step_losses import (
    INTERRUPTED,
    RESUMING,
    SUSPECT_AFTER,
    is_tool_step,
    read_losses,
)
from bonseyes_dagster.execution.threads.step_thread import StepContext, StepMessage, StepThread

__all__ = ["ConcurrentExecutor", "acquire_run", "concurrent_executor"]

MAX_CONCURRENT = 128
# A cancelled run waits this long for ops that do not wait through interruption.py. They then end with the process.
GRACE_S = 5.0
# Messages and signals wake the main thread. This timeout is for changes that send neither.
IDLE_S = 30.0
POOL_POLL_S = 0.25


def acquire_run(
    plan_context: PlanOrchestrationContext, stack: ExitStack
) -> Generator[DagsterEvent, None, tuple[RunLease, DagsterRun]]:
    """Hold the lease of a run until the stack is closed; return the lease, and the run with a unique name."""
    run = plan_context.dagster_run
    try:
        run_lease = stack.enter_context(lease(plan_context.instance, run))
    except RunTakenError as error:
        yield DagsterEvent.engine_event(plan_context, str(error), EngineEventData())
        raise DagsterExecutionInterruptedError(str(error)) from error
    if not run_lease.is_dedicated:
        run, former = settle_name(plan_context.instance, run)
        if former:
            message = f"Another run is called {former}; this one is called {run_name(run)}."
            yield DagsterEvent.engine_event(plan_context, message, EngineEventData())
    return run_lease, run


class ConcurrentExecutor(Executor):
    """Implements Dagster's executor interface with StepThread."""

    def __init__(
        self,
        retries: RetryMode = RetryMode.ENABLED,
        max_concurrent: int = MAX_CONCURRENT,
        tag_concurrency_limits: list[dict[str, Any]] | None = None,
    ) -> None:
        self._retries = retries
        self._max_concurrent = max_concurrent
        self._tag_concurrency_limits = tag_concurrency_limits or []

    @property
    def retries(self) -> RetryMode:
        """Return whether steps are retried."""
        return self._retries

    def execute(self, plan_context: PlanOrchestrationContext, execution_plan: ExecutionPlan) -> Iterator[DagsterEvent]:
        """Yield the events of the run's steps as they happen; raise if the run was interrupted."""
        with ExitStack() as stack:
            run_lease, run = yield from acquire_run(plan_context, stack)
            yield from self._execute(plan_context, execution_plan, run_lease, run)

    def _execute(
        self,
        plan_context: PlanOrchestrationContext,
        execution_plan: ExecutionPlan,
        run_lease: RunLease,
        run: DagsterRun,
    ) -> Iterator[DagsterEvent]:
        yield DagsterEvent.engine_event(
            plan_context,
            f"Executing steps at the same time in threads of one process (pid: {os.getpid()})",
            EngineEventData.in_process(os.getpid(), execution_plan.step_keys_to_execute),
        )
        context_manager = PlanExecutionContextManager(
            job=plan_context.job,
            retry_mode=plan_context.retry_mode,
            execution_plan=plan_context.execution_plan,
            run_config=plan_context.run_config,
            dagster_run=run,
            instance=plan_context.instance,
            raise_on_error=plan_context.raise_on_error,
            output_capture=plan_context.output_capture,
            step_dependency_config=self.step_dependency_config,
        )
        iterator = partial(self._run_steps, is_resumed=plan_context.resume_from_failure, run_lease=run_lease)
        yield from iter(ExecuteRunWithPlanIterable(execution_plan, iterator, context_manager))

    def _run_steps(
        self, job_context: PlanExecutionContext, execution_plan: ExecutionPlan, is_resumed: bool, run_lease: RunLease
    ) -> Iterator[DagsterEvent]:
        with ExitStack() as stack:
            claims = stack.enter_context(InstanceConcurrencyContext(job_context.instance, job_context.dagster_run))
            active = stack.enter_context(
                ResumableExecution(
                    execution_plan,
                    retry_mode=job_context.retry_mode,
                    max_concurrent=self._max_concurrent,
                    tag_concurrency_limits=self._tag_concurrency_limits,
                    instance_concurrency_context=claims,
                    step_dependency_config=self.step_dependency_config,
                )
            )
            suspects: set[str] = set()
            if is_resumed:
                yield from _resume(job_context, active)
                suspects = _count_losses(job_context, active)
            yield from _RunLoop(job_context, active, claims, run_lease, suspects).events()


def _resume(job_context: PlanExecutionContext, active: ResumableExecution) -> Iterator[DagsterEvent]:
    """Continue the run of a process that died: its finished steps stay finished, its steps in flight start again."""
    # The dead process cannot release its slots in pools.
    job_context.instance.event_log_storage.free_concurrency_slots_for_run(job_context.run_id)
    progress = read_progress(job_context.instance, job_context.run_id)
    active.replay(progress)
    yield DagsterEvent.engine_event(job_context, f"{RESUMING} (pid: {os.getpid()})", EngineEventData())
    # These events are in the log already. Dagster must see them again, so that it fails the run at the end.
    yield from active.failures(progress)


def _count_losses(job_context: PlanExecutionContext, active: ResumableExecution) -> set[str]:
    """Count each loss of the run's process as an attempt of the steps in flight; return the suspects among them."""
    losses = {
        key: count
        for key, count in read_losses(job_context.instance, job_context.run_id).items()
        if not is_tool_step(active.get_step_by_key(key))
    }
    active.count_losses(losses)
    return {key for key, count in losses.items() if count >= SUSPECT_AFTER}


class _RunLoop:
    """The loop of a run's main thread: it starts ready steps, handles their messages, and stops on an interruption."""

    def __init__(
        self,
        job_context: PlanExecutionContext,
        active: ResumableExecution,
        claims: InstanceConcurrencyContext,
        run_lease: RunLease,
        suspects: set[str],
    ) -> None:
        self._context = job_context
        self._suspects = suspects
        self._lease = run_lease
        self._active = active
        self._claims = claims
        self._process = ProcessState()
        self._threads: dict[str, StepThread | IsolatedStep] = {}
        # The retry events, by step. The next attempt must not begin before the thread of this attempt has ended.
        self._up_for_retry: dict[str, DagsterEvent] = {}
        self._error: BaseException | None = None
        # A search for ready steps takes time for each step of the plan. That is too much for each event of each step.
        self._is_plan_due = True
        self._planned_at = 0.0
        self._is_stopping = False
        self._leave_at = float("inf")
        # Dagster's own manager redirects the descriptors of the whole process. With it, the run has one log for all
        # steps.
        self._captures_steps = isinstance(job_context.instance.compute_log_manager, StepComputeLogManager)

    def events(self) -> Iterator[DagsterEvent]:
        with ExitStack() as stack:
            self._mailbox: Mailbox[StepMessage] = stack.enter_context(Mailbox())
            self._interruption = stack.enter_context(interruption_scope())
            if not self._captures_steps:
                yield from self._capture_run(stack)
            while True:
                if self._active.check_for_interrupts() or self._lease.receive_stop():
                    yield from self._stop()
                if not self._is_stopping and self._is_plan_due:
                    yield from self._plan()
                # Only after a plan: before it, the steps that new dynamic outputs require are neither pending nor done.
                if (self._is_stopping or self._is_plan_due) and self._is_over():
                    break
                yield from self._handle_messages()
        self._finish()

    def _plan(self) -> Iterator[DagsterEvent]:
        self._planned_at = time.monotonic()
        yield from self._active.plan_events_iterator(self._context)
        self._start_ready()
        yield from self._active.concurrency_event_iterator(self._context)

    def _handle_messages(self) -> Iterator[DagsterEvent]:
        """Wait for messages and handle them. Retries and slots in pools become due without a message."""
        messages = 0
        self._is_plan_due = False
        for message in self._mailbox.wait(self._wait_s()):
            messages += 1
            yield from self._handle(message)
        if not messages or time.monotonic() - self._planned_at >= POOL_POLL_S:
            self._is_plan_due = True

    def _is_over(self) -> bool:
        if self._is_stopping:
            return not self._threads or time.monotonic() >= self._leave_at
        return not self._threads and self._active.is_complete

    def _wait_s(self) -> float:
        if self._is_stopping:
            return max(0.0, min(self._leave_at - time.monotonic(), IDLE_S))
        idle_s = IDLE_S if self._lease.is_dedicated else POLL_S
        return self._active.wait_s(POOL_POLL_S if self._claims.has_pending_claims() else idle_s)

    def _capture_run(self, stack: ExitStack) -> Iterator[DagsterEvent]:
        manager = self._context.instance.compute_log_manager
        key = manager.build_log_key_for_run(self._context.run_id, create_compute_log_file_key())  # type: ignore[no-untyped-call]
        steps = [step.key for step in self._context.execution_plan.get_steps_to_execute_in_topo_order()]
        try:
            log_context = stack.enter_context(manager.capture_logs(key))
            yield DagsterEvent.capture_logs(self._context, steps, key, log_context)
        except Exception:
            yield from _handle_compute_log_setup_error(self._context, sys.exc_info())

    def _start_ready(self) -> None:
        for step in self._active.get_steps_to_execute():
            self._start(step)

    def _start(self, step: ExecutionStep) -> None:
        context = StepContext.for_thread(self._context, step, self._active.get_known_state(), self._interruption)
        thread: StepThread | IsolatedStep
        if step.key in self._suspects:
            thread = IsolatedStep(context, self._context, self._mailbox)
        else:
            thread = StepThread(
                context,
                self._context,
                self._mailbox,
                captures_logs=self._captures_steps,
                is_alone=lambda: len(self._threads) == 1,
            )
            self._process.begin(step.key)
        self._threads[step.key] = thread
        thread.start()

    def _handle(self, message: StepMessage) -> Iterator[DagsterEvent]:
        if message.event is not None:
            yield message.event
            if message.event.is_step_up_for_retry:
                self._up_for_retry[message.key] = message.event
            elif message.event.step_key == message.key and not message.event.is_hook_event:
                self._active.handle_event(message.event)
                self._is_plan_due = self._is_plan_due or message.event.is_successful_output
            return
        self._is_plan_due = True
        del self._threads[message.key]
        self._restore_process()
        if message.key in self._up_for_retry:
            self._active.handle_event(self._up_for_retry.pop(message.key))
        if isinstance(message.error, DagsterExecutionInterruptedError | KeyboardInterrupt):
            if not self._is_stopping:
                yield from self._stop()
        elif message.error is not None:
            yield from self._abort(message)
        self._active.verify_complete(self._context, message.key)

    def _restore_process(self) -> None:
        warning = None if self._threads else self._process.restore()
        if warning:
            self._context.log.warning(warning)

    def _abort(self, message: StepMessage) -> Iterator[DagsterEvent]:
        """End the run, because a step's thread failed, or because the caller of this run wants errors raised."""
        self._error = self._error or message.error
        self._is_stopping = True
        self._leave_at = time.monotonic() + GRACE_S
        self._interruption.set()
        if not self._context.raise_on_error and message.error is not None:
            error = message.error
            raised: Any = (type(error), error, error.__traceback__)
            info = serializable_error_info_from_exc_info(raised)
            yield DagsterEvent.engine_event(
                self._context, f"The thread of step {message.key} failed.", EngineEventData(error=info)
            )

    def _stop(self) -> Iterator[DagsterEvent]:
        """Start no more steps, and interrupt the running steps, unless another process will resume the run."""
        is_second = self._is_stopping
        self._is_stopping = True
        self._active.mark_interrupted()
        if is_second or self._will_resume():
            self._leave_at = 0.0
            message = INTERRUPTED
        else:
            self._leave_at = time.monotonic() + GRACE_S
            self._interruption.set()
            message = "Interrupted; the steps in flight are being stopped."
        yield DagsterEvent.engine_event(
            self._context,
            message,
            EngineEventData({"steps": MetadataValue.text(", ".join(self._threads) or "none")}),
        )

    def _will_resume(self) -> bool:
        """Tell whether only this process is being stopped, and not the run; steps must not fail then."""
        instance = self._context.instance
        run = instance.get_run_by_id(self._context.run_id)
        if run is None or run.is_finished or run.status is DagsterRunStatus.CANCELING:
            return False
        if self._lease.cancel_unlaunched():
            return False
        return instance.run_will_resume(self._context.run_id)

    def _finish(self) -> None:
        if self._error is not None:
            raise self._error
        if self._is_stopping:
            raise DagsterExecutionInterruptedError("The run was interrupted.")


@executor(
    name="concurrent",
    config_schema={
        "max_concurrent": Field(
            Noneable(Int),
            default_value=None,
            description=f"How many ops of a run may run at the same time; {MAX_CONCURRENT} by default.",
        ),
        "retries": get_retries_config(),  # type: ignore[no-untyped-call]
        "tag_concurrency_limits": get_tag_concurrency_limits_config(),  # type: ignore[no-untyped-call]
    },
)
def _concurrent_executor(init_context: InitExecutorContext) -> Executor:
    """Run ready ops at the same time, in threads of the run process."""
    config: Any = init_context.executor_config
    return ConcurrentExecutor(
        retries=RetryMode.from_config(config["retries"]) or RetryMode.ENABLED,
        max_concurrent=config.get("max_concurrent") or MAX_CONCURRENT,
        tag_concurrency_limits=config.get("tag_concurrency_limits"),
    )


concurrent_executor: ExecutorDefinition = _concurrent_executor
