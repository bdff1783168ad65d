"""Jobs for test_launcher.py; their ops write notes into the folder in their configuration."""
# ruff: noqa: D103 - the names of these ops say enough

import os
import sys
import time
from pathlib import Path

from dagster import (
    Definitions,
    DynamicOut,
    DynamicOutput,
    Field,
    OpExecutionContext,
    Out,
    Output,
    RetryPolicy,
    job,
    multiprocess_executor,
    op,
)

from bonseyes_dagster.execution.threads.executor import concurrent_executor
from bonseyes_dagster.execution.threads.interruption import interruptible_wait
from bonseyes_dagster.execution.threads.multiprocess import separate_executor
from bonseyes_dagster.tags import CONTAINER_TAG

ANSWER = "first"
FOLDER = {"folder": Field(str, default_value="")}


def note(context: OpExecutionContext, text: str) -> None:
    with (Path(context.op_config["folder"]) / "notes").open("a") as file:
        file.write(f"{text}\n")


@op
def one() -> int:
    return 1


@op
def add(number: int) -> int:
    return number + 1


@job(executor_def=concurrent_executor)
def quick():
    add(one())


@op
def broken() -> None:
    raise ValueError("broken")


@job(executor_def=concurrent_executor)
def failing():
    broken()


@op(config_schema=FOLDER)
def first(context: OpExecutionContext) -> int:
    note(context, "first")
    return 1


@op(config_schema=FOLDER)
def wait_for_release(context: OpExecutionContext, number: int) -> int:
    note(context, f"waiting {os.getpid()}")
    while not (Path(context.op_config["folder"]) / "release").exists():
        interruptible_wait(0.05)
    return number + 1


@op(config_schema=FOLDER)
def last(context: OpExecutionContext, number: int) -> int:
    note(context, f"last {number}")
    return number


@job(executor_def=concurrent_executor)
def waiting():
    last(wait_for_release(first()))


@job(executor_def=multiprocess_executor)
def waiting_stock():
    last(wait_for_release(first()))


@job(executor_def=separate_executor([]))
def waiting_separate():
    last(wait_for_release(first()))


@op(config_schema=FOLDER)
def sleep_on(context: OpExecutionContext) -> None:
    note(context, f"waiting {os.getpid()}")
    for _ in range(1200):
        time.sleep(0.05)


@job(executor_def=concurrent_executor)
def stubborn():
    sleep_on()


@op(config_schema=FOLDER, retry_policy=RetryPolicy(max_retries=2, delay=0.3))
def flaky(context: OpExecutionContext) -> int:
    note(context, f"flaky {context.retry_number}")
    if context.retry_number == 0:
        raise ValueError("not yet")
    return 1


@op(out={"given": Out(int, is_required=False), "withheld": Out(int, is_required=False)})
def branch(number: int):
    yield Output(number, "given")


@op(out=DynamicOut(int))
def fan_out(number: int):
    for index in range(3):
        yield DynamicOutput(index + number, mapping_key=f"k{index}")


@op(config_schema=FOLDER)
def total(context: OpExecutionContext, numbers: list[int]) -> None:
    note(context, f"total {sorted(numbers)}")


@job(executor_def=concurrent_executor)
def involved():
    given, withheld = branch(flaky())
    total(fan_out(given).map(wait_for_release).collect())
    add.alias("skipped")(withheld)
    broken()


@op(config_schema={**FOLDER, "neighbours": Field(int, default_value=0), "signal": Field(int, default_value=0)})
def end_process(context: OpExecutionContext, number: int) -> None:
    note(context, f"end_process {context.retry_number}")
    sys.stdout.write(f"about to end, after {number}\n")
    begun = context.op_config["neighbours"] * (context.retry_number + 1)
    while (Path(context.op_config["folder"]) / "notes").read_text().count("neighbour") < begun:
        time.sleep(0.01)
    if context.op_config["signal"]:
        os.kill(os.getpid(), context.op_config["signal"])
    os._exit(3)


@op(config_schema=FOLDER)
def neighbour(context: OpExecutionContext) -> None:
    note(context, f"neighbour {os.getpid()}")
    while not (Path(context.op_config["folder"]) / "release").exists():
        interruptible_wait(0.05)


@op(config_schema=FOLDER, tags={CONTAINER_TAG: "nowhere"})
def tool_neighbour(context: OpExecutionContext) -> None:
    note(context, f"neighbour {os.getpid()}")
    while not (Path(context.op_config["folder"]) / "release").exists():
        interruptible_wait(0.05)


@job(executor_def=concurrent_executor)
def deadly():
    end_process(one())
    neighbour()
    tool_neighbour()


@job(executor_def=concurrent_executor)
def deadly_with_retries():
    end_process.with_retry_policy(RetryPolicy(max_retries=3))(one())


@op
def answer(context: OpExecutionContext) -> str:
    context.log.info(f"the answer is {ANSWER}")
    return ANSWER


@job(executor_def=concurrent_executor)
def answering():
    answer()


@op
def talk(context: OpExecutionContext) -> None:
    for number in range(400):
        context.log.info(f"line {number} of {context.run_id}")
        interruptible_wait(0.01)


@job(executor_def=concurrent_executor)
def talkative():
    talk()


definitions = Definitions(
    jobs=[
        quick,
        failing,
        waiting,
        waiting_stock,
        waiting_separate,
        involved,
        stubborn,
        deadly,
        deadly_with_retries,
        answering,
        talkative,
    ]
)
