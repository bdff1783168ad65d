"""The jobs that test_launcher.py launches; they note what they do in the folder that their configuration names."""
# ruff: noqa: D103 - the ops of these jobs are named for what they do

import os
import time
from pathlib import Path

from dagster import Definitions, Field, OpExecutionContext, job, op

from bonseyes_dagster.orchestration.executor import concurrent_executor
from bonseyes_dagster.orchestration.interruption import interruptible_wait

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


@op(config_schema=FOLDER)
def sleep_on(context: OpExecutionContext) -> None:
    note(context, f"waiting {os.getpid()}")
    for _ in range(1200):
        time.sleep(0.05)


@job(executor_def=concurrent_executor)
def stubborn():
    sleep_on()


@op
def answer(context: OpExecutionContext) -> str:
    context.log.info(f"the answer is {ANSWER}")
    return ANSWER


@job(executor_def=concurrent_executor)
def answering():
    answer()


definitions = Definitions(jobs=[quick, failing, waiting, stubborn, answering])
