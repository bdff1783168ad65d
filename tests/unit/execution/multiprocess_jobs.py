"""Jobs for test_multiprocess.py: ops that change state of their process, end the process, or wait."""
# ruff: noqa: D103 - the names of these ops say enough

import contextlib
import io
import os
import time
from dataclasses import dataclass
from pathlib import Path

from dagster import Definitions, OpExecutionContext, job, op

from bonseyes_dagster.execution.threads.interruption import interruptible_wait
from bonseyes_dagster.execution.threads.multiprocess import separate_executor
from bonseyes_dagster.orchestration.steps.references import reference_io_manager

FOLDER = {"folder": str}
PATIENCE_S = 60.0


@dataclass(frozen=True)
class Seen:
    """The process state that an op finds after the other op has changed its own."""

    folder: str
    variable: str
    captured: str


def note(context: OpExecutionContext, text: str) -> None:
    with (Path(context.op_config["folder"]) / "notes").open("a") as file:
        file.write(f"{text}\n")


def wait_for(*paths: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not all(path.exists() for path in paths):
        assert time.monotonic() < deadline, paths
        time.sleep(0.02)


def change_the_process(context: OpExecutionContext, other: str) -> Seen:
    name, folder = context.op.name, Path(context.op_config["folder"])
    own = folder / f"{name}-home"
    own.mkdir()
    os.chdir(own)
    os.environ["WHO"] = name
    print(f"{name} before")
    with contextlib.redirect_stdout(io.StringIO()) as captured:
        (folder / f"{name}-changed").touch()
        wait_for(folder / f"{other}-changed")
        print(f"{name} captured")
        (folder / f"{name}-printed").touch()
        wait_for(folder / f"{other}-printed")
    print(f"{name} after")
    return Seen(Path.cwd().name, os.environ["WHO"], captured.getvalue())


@op(config_schema=FOLDER)
def left(context: OpExecutionContext) -> Seen:
    return change_the_process(context, "right")


@op(config_schema=FOLDER)
def right(context: OpExecutionContext) -> Seen:
    return change_the_process(context, "left")


@op(config_schema=FOLDER)
def compare(context: OpExecutionContext, seen_left: Seen, seen_right: Seen) -> None:
    note(context, f"{seen_left} {seen_right}")


@op(config_schema=FOLDER)
def first(context: OpExecutionContext) -> tuple[int, dict[int, str]]:
    note(context, "first")
    return 1, {2: "two"}


@op
def fails() -> None:
    raise ValueError("on purpose")


@op(config_schema=FOLDER)
def wait_for_release(context: OpExecutionContext, value: tuple[int, dict[int, str]]) -> tuple[int, dict[int, str]]:
    note(context, f"waiting {os.getpid()}")
    while not (Path(context.op_config["folder"]) / "release").exists():
        interruptible_wait(0.05)
    return value


@op(config_schema=FOLDER)
def last(context: OpExecutionContext, value: tuple[int, dict[int, str]]) -> None:
    note(context, f"last {value}")


@op
def end_the_process() -> None:
    os._exit(3)


SEPARATE = {
    "executor_def": separate_executor(["bonseyes_dagster.orchestration.pipeline"]),
    "resource_defs": {"io_manager": reference_io_manager},
}


@job(**SEPARATE)
def neighbours():
    compare(left(), right())


@job(**SEPARATE)
def waiting():
    last(wait_for_release(first()))
    fails()


@job(**SEPARATE)
def deadly():
    end_the_process()
    first()


definitions = Definitions(jobs=[neighbours, waiting, deadly])
