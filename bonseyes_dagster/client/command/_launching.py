"""Create an artifact or a run, and wait for it: shared by `run`, `artifact create` and `wait`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import click

from bonseyes_dagster.client import Artifact, Container
from bonseyes_dagster.client.command._completion import complete_address, complete_parameter
from bonseyes_dagster.client.command._exits import FAILED
from bonseyes_dagster.client.command._printing.benchmarks import print_benchmarks, read_benchmarks
from bonseyes_dagster.client.command._printing.output import clean, print_json, print_note
from bonseyes_dagster.client.command._printing.progress import summary, wait
from bonseyes_dagster.client.command._state import State
from bonseyes_dagster.client.command._values import read_parameters
from bonseyes_dagster.errors import BonseyesError, InvalidError

__all__ = ["address_argument", "ask_all", "find_artifact", "finish", "launch", "launch_options"]

_F = TypeVar("_F", bound=Callable[..., Any])
_T = TypeVar("_T")
_K = TypeVar("_K")

address_argument = click.argument("address", metavar="CONTAINER/NAME", shell_complete=complete_address)


def find_artifact(state: State, address: str) -> Artifact:
    """Return the artifact or run at `CONTAINER/NAME`, or at its URL."""
    container, slash, name = (
        address.removeprefix("http://").replace("/artifacts/", "/").replace("/runs/", "/").partition("/")
    )
    if not (container and slash and name) or "/" in name:
        raise InvalidError(f"{address!r} is not an address: write CONTAINER/NAME, such as training/first_train.")
    return state.project.container(container).artifact(name)


def launch_options(command: _F) -> _F:
    """Add the options that `run` and `artifact create` share."""
    for option in reversed(
        (
            click.option("-p", "--parameter", "values", metavar="KEY=VALUE", multiple=True,
                         shell_complete=complete_parameter, help="A parameter; may be repeated."),
            click.option("-f", "--file", "files", metavar="PARAM=PATH", multiple=True,
                         shell_complete=complete_parameter, help="A file to upload; may be repeated."),
            click.option("--wait", "-w", "waits", is_flag=True, help="Wait for the result and exit 1 if it failed."),
            click.option("--timeout", "timeout_s", type=click.FloatRange(min=0), metavar="SECONDS",
                         help="Stop waiting after this time (exit 9); the artifact or run goes on."),
        )
    ):  # fmt: skip
        command = option(command)
    return command


def launch(
    state: State,
    container: Container,
    name: str | None,
    words: tuple[Sequence[str], Sequence[str]],
    *,
    reuse: bool,
    waits: bool,
    timeout_s: float | None,
) -> None:
    """Create an artifact or a run; with `waits`, wait for it, otherwise print its address."""
    parameters, files = read_parameters(container.describe().parameters, *words)
    artifact = container.create(name, parameters, {**files}, reuse=reuse)
    group = "runs" if container.kind == "runs" else "artifact"
    if not waits:
        if state.json:
            print_json({"name": artifact.name, "container": container.name, "url": artifact.url})
        else:
            click.echo(clean(f"{container.name}/{artifact.name}"))
            print_note(f"To watch it: bonseyes {group} wait {container.name}/{artifact.name}")
        return
    finish(state, artifact, timeout_s)


def finish(state: State, artifact: Artifact, timeout_s: float | None) -> None:
    """Wait, print the result and a run's benchmarks, and exit 1 unless it is completed."""
    status = wait(state, artifact, timeout_s)
    is_run = artifact.container.kind == "runs"
    benchmarks = read_benchmarks(artifact) if is_run and status.phase == "completed" else {}
    if state.json:
        print_json({**status.to_json(), **({"benchmarks": benchmarks} if is_run else {})})
    else:
        click.echo(clean(summary(status)))
        print_benchmarks(benchmarks)
    if status.phase != "completed":
        click.get_current_context().exit(FAILED)


def ask_all(things: Sequence[_K], ask: Callable[[_K], _T]) -> list[tuple[_K, _T]]:
    """Return `ask` of each thing, called in parallel threads; print each error to standard error and leave it out."""

    def attempt(thing: _K) -> _T | BonseyesError:
        try:
            return ask(thing)
        except BonseyesError as error:
            return error

    answers: list[tuple[_K, _T]] = []
    with ThreadPoolExecutor(max_workers=16) as pool:
        for thing, answer in zip(things, pool.map(attempt, things), strict=True):
            if isinstance(answer, BonseyesError):
                print_note(f"{thing}: {answer.message}")
            else:
                answers.append((thing, answer))
    return answers
