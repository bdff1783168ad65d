"""Jobs for test_executor.py, each for every executor. They are in a separate file, because step processes load it."""
# ruff: noqa: D103 - the names of these ops say enough

import asyncio
import contextlib
import io
import logging
import os
import socket
import sys
import threading
import time
from pathlib import Path

from dagster import (
    Definitions,
    DynamicOut,
    DynamicOutput,
    Failure,
    Field,
    HookContext,
    In,
    Nothing,
    OpExecutionContext,
    Out,
    Output,
    RetryPolicy,
    failure_hook,
    graph,
    in_process_executor,
    multiprocess_executor,
    op,
    success_hook,
)

from bonseyes_dagster.execution.threads.executor import concurrent_executor
from bonseyes_dagster.execution.threads.interruption import interruptible_call, interruptible_wait, run_is_interrupted


def note(text: str) -> None:
    """Append a line to the file that the test reads; small appends are atomic between processes."""
    with Path(os.environ["EXECUTOR_TEST_NOTES"]).open("a") as file:
        file.write(f"{text}\n")


def marker() -> Path:
    """Return the file whose creation makes an op go on."""
    return Path(os.environ["EXECUTOR_TEST_NOTES"] + ".marker")


def wait_for_naps(count: int) -> None:
    """Return when `count` naps have begun, or after 30 s."""
    notes, deadline = Path(os.environ["EXECUTOR_TEST_NOTES"]), time.monotonic() + 30
    while notes.read_text().count("begin nap") < count and time.monotonic() < deadline:
        time.sleep(0.01)


@op
def one() -> int:
    return 1


@op
def add(number: int) -> int:
    return number + 1


@graph
def chain():
    add.alias("third")(add.alias("second")(one()))


@op(config_schema={"seconds": float, "begun": Field(int, default_value=1)})
def nap(context: OpExecutionContext) -> None:
    note(f"begin {context.op.name}")
    wait_for_naps(context.op_config["begun"])
    time.sleep(context.op_config["seconds"])
    note(f"end {context.op.name}")


@graph
def naps():
    for index in range(3):
        nap.alias(f"nap_{index}")()


@op
def watch_main_thread() -> None:
    """Write a note with the processor time of the main thread in seconds while this step sleeps."""
    clock = time.pthread_getcpuclockid(threading.main_thread().ident or 0)
    time.sleep(0.5)  # the main thread may still start the run
    before = time.clock_gettime(clock)
    time.sleep(1.5)
    note(f"used {time.clock_gettime(clock) - before}")


@graph
def watched():
    watch_main_thread()


@op(retry_policy=RetryPolicy(max_retries=2, delay=0.2))
def flaky(context: OpExecutionContext) -> int:
    note(f"try {context.retry_number} {time.time()}")
    if context.retry_number < 2:
        raise ValueError("not yet")
    return context.retry_number


@graph
def retried():
    add(flaky())


@op(retry_policy=RetryPolicy(max_retries=1))
def hopeless() -> int:
    raise Failure("never", allow_retries=True)


@graph
def retried_in_vain():
    add(hopeless())


@op(retry_policy=RetryPolicy(max_retries=1))
def slow_to_succeed(context: OpExecutionContext) -> int:
    if context.retry_number == 0:
        raise ValueError("not yet")
    time.sleep(0.6)
    return context.retry_number


@graph
def retried_at_once():
    slow_to_succeed()


@success_hook
def note_success(context: HookContext) -> None:
    note(f"success {context.op.name}")


@failure_hook
def note_failure(context: HookContext) -> None:
    note(f"failure {context.op.name}")


@success_hook
def broken_hook(context: HookContext) -> None:
    raise ValueError("the hook is broken")


@op
def broken(number: int) -> int:
    raise ValueError("broken")


@op(ins={"start": In(Nothing)})
def after() -> int:
    return 7


@graph
def hooked():
    number = one.with_hooks({note_success, note_failure})()
    broken.with_hooks({note_success, note_failure})(number)
    add.with_hooks({broken_hook})(number)


@graph
def failing():
    number = one()
    add.alias("downstream")(broken(number))
    add.alias("unharmed")(number)


@op(out=DynamicOut(int))
def fan_out():
    for index in range(4):
        yield DynamicOutput(index, mapping_key=f"k{index}")


@op
def total(numbers: list[int]) -> int:
    note(f"total {sum(numbers)}")
    return sum(numbers)


@graph
def dynamic():
    total(fan_out().map(add).collect())


@op(out=DynamicOut(int))
def fan_out_nothing():
    yield from ()


@graph
def dynamic_empty():
    total(fan_out_nothing().map(add).collect())


@op(out={"left": Out(int, is_required=False), "right": Out(int, is_required=False)})
def branch():
    yield Output(1, "left")


@graph
def optional():
    left, right = branch()
    add.alias("taken")(left)
    add.alias("beyond")(add.alias("skipped")(right))


@op(tags={"lane": "narrow"}, config_schema={"seconds": float})
def narrow(context: OpExecutionContext) -> None:
    note(f"begin {context.op.name}")
    time.sleep(context.op_config["seconds"])
    note(f"end {context.op.name}")


@graph
def tagged():
    for index in range(3):
        narrow.alias(f"narrow_{index}")()


@op(pool="basin", config_schema={"seconds": float})
def pooled_op(context: OpExecutionContext) -> None:
    note(f"begin {context.op.name}")
    time.sleep(context.op_config["seconds"])
    note(f"end {context.op.name}")


@graph
def pooled():
    for index in range(2):
        pooled_op.alias(f"pooled_{index}")()


@op
def fails_once(number: int) -> int:
    if not marker().exists():
        marker().touch()
        raise ValueError("the first time")
    return number + 10


@op
def counted() -> int:
    note("counted")
    return 1


@graph
def fails_first():
    add(fails_once(counted()))


@op
async def wait_async() -> int:
    await asyncio.sleep(0.2)
    return 1


@graph
def asynchronous():
    add.alias("a")(wait_async.alias("wait_a")())
    add.alias("b")(wait_async.alias("wait_b")())


@op(config_schema={"seconds": float})
def print_slowly(context: OpExecutionContext) -> None:
    name = context.op.name
    for index in range(20):
        print(f"{name} line {index}")
        logging.getLogger("managed").warning("%s record %d", name, index)
        context.log.info(f"{name} context {index}")
        time.sleep(context.op_config["seconds"] / 20)


@graph
def talkative():
    for index in range(4):
        print_slowly.alias(f"talker_{index}")()


@op
def helper_thread(context: OpExecutionContext) -> None:
    def talk() -> None:
        print("from a helper thread")
        context.log.info("logged by a helper thread")

    thread = threading.Thread(target=talk)
    thread.start()
    thread.join()


@graph
def helped():
    helper_thread()


@op
def wait_for_long() -> None:
    note("begin wait")
    try:
        interruptible_wait(60)
    finally:
        note(f"interrupted {run_is_interrupted()}")


@op(retry_policy=RetryPolicy(max_retries=3))
def wait_for_long_with_retry() -> None:
    note("begin wait")
    interruptible_wait(60)


@op(retry_policy=RetryPolicy(max_retries=3))
def call_for_long() -> None:
    note("begin call")
    interruptible_call(time.sleep, 60)


@op
def sleep_stubbornly() -> None:
    note("begin sleep")
    deadline = time.monotonic() + 30
    while not marker().exists() and time.monotonic() < deadline:
        time.sleep(0.01)


@graph
def waiting():
    wait_for_long()
    wait_for_long_with_retry()
    call_for_long()


@graph
def stubborn():
    sleep_stubbornly()


def wait_for_notes(count: int, text: str) -> None:
    """Return when ops have written `text` `count` times, or after 30 s."""
    notes, deadline = Path(os.environ["EXECUTOR_TEST_NOTES"]), time.monotonic() + 30
    while notes.read_text().count(text) < count and time.monotonic() < deadline:
        time.sleep(0.01)


@op
def leave_changed() -> int:
    os.chdir("/")
    os.environ["LEFT_BY_AN_OP"] = "secret"
    os.environ.pop("EXECUTOR_TEST_OWN", None)
    os.umask(0o077)
    socket.setdefaulttimeout(7.0)
    sys.stdout = io.StringIO()
    return 1


@op
def look(number: int) -> int:
    umask = os.umask(0o022)
    os.umask(umask)
    note(f"{Path.cwd()} {os.environ.get('LEFT_BY_AN_OP')} {os.environ.get('EXECUTOR_TEST_OWN')}")
    note(f"{umask:o} {socket.getdefaulttimeout()}")
    print("printed by look")
    return number


@graph
def changing():
    look(leave_changed())


@op
def change_and_wait() -> None:
    os.environ["LEFT_BY_AN_OP"] = "relied on"
    note("changed")
    wait_for_notes(1, "neighbour ended")
    time.sleep(0.3)
    note(f"still {os.environ.get('LEFT_BY_AN_OP')}")


@op
def neighbour() -> None:
    wait_for_notes(1, "changed")
    note("neighbour ended")


@graph
def changing_beside():
    change_and_wait()
    neighbour()


@op
def redirect(context: OpExecutionContext) -> None:
    name = context.op.name
    print(f"{name} before")
    with contextlib.redirect_stdout(io.StringIO()) as captured, contextlib.redirect_stderr(captured):
        note("redirected")
        wait_for_notes(2, "redirected")
        print(f"{name} out")
        print(f"{name} err", file=sys.stderr)
        note("printed")
        wait_for_notes(2, "printed")
    print(f"{name} after")
    note(f"captured {captured.getvalue().split()}")


@graph
def redirecting():
    redirect.alias("one_redirect")()
    redirect.alias("two_redirect")()


GRAPHS = [
    chain, naps, watched, retried, retried_in_vain, retried_at_once, hooked, failing, dynamic, dynamic_empty, optional,
    tagged, pooled, fails_first, asynchronous, talkative, helped, waiting, stubborn,
    changing, changing_beside, redirecting,
]  # fmt: skip
EXECUTORS = {
    "concurrent": concurrent_executor,
    "in_process": in_process_executor,
    "multiprocess": multiprocess_executor,
}

definitions = Definitions(
    jobs=[
        graph_.to_job(name=f"{graph_.name}_{name}", executor_def=executor)
        for graph_ in GRAPHS
        for name, executor in EXECUTORS.items()
    ]
)
