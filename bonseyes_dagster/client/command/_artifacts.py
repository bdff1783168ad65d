"""`bonseyes artifacts` and `bonseyes artifact ...`; what holds for runs as well is shared with `bonseyes runs`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import click

from bonseyes_dagster.client import Artifact, Container
from bonseyes_dagster.client.command._completion import complete_address, complete_container, complete_parameter
from bonseyes_dagster.client.command._exits import FAILED
from bonseyes_dagster.client.command._extensions import ExtensibleGroup
from bonseyes_dagster.client.command._output import (
    age,
    duration,
    print_fields,
    print_json,
    print_note,
    print_table,
    size,
)
from bonseyes_dagster.client.command._progress import show_bytes, summary, wait
from bonseyes_dagster.client.command._state import State, json_option, pass_state
from bonseyes_dagster.client.command._values import read_parameters
from bonseyes_dagster.errors import BonseyesError, InvalidError
from bonseyes_dagster.model import Status

__all__ = ["COMMANDS", "SHARED", "ask_all", "launch", "launch_options"]

_F = TypeVar("_F", bound=Callable[..., Any])
_T = TypeVar("_T")
_K = TypeVar("_K")

_address = click.argument("address", metavar="CONTAINER/NAME", shell_complete=complete_address)


def _find(state: State, address: str) -> Artifact:
    container, slash, name = (
        address.removeprefix("http://").replace("/artifacts/", "/").replace("/runs/", "/").partition("/")
    )
    if not (container and slash and name) or "/" in name:
        raise InvalidError(f"{address!r} is no address: write CONTAINER/NAME, as in training/first_train")
    return state.project.container(container).artifact(name)


def launch_options(command: _F) -> _F:
    """Add what `run` and `artifact create` both take."""
    for option in reversed(
        (
            click.option("-p", "--parameter", "values", metavar="KEY=VALUE", multiple=True,
                         shell_complete=complete_parameter, help="A parameter; may be given many times."),
            click.option("-f", "--file", "files", metavar="PARAM=PATH", multiple=True,
                         shell_complete=complete_parameter, help="A file to upload; may be given many times."),
            click.option("--wait", "-w", "waits", is_flag=True, help="Wait for the result and exit 1 if it failed."),
            click.option("--timeout", "timeout_s", type=click.FloatRange(min=0), metavar="SECONDS",
                         help="Give up waiting after this long (exit 9); what was started goes on."),
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
    """Create an artifact or a run, say so, and wait if that is wanted."""
    parameters, files = read_parameters(container.describe().parameters, *words)
    artifact = container.create(name, parameters, {**files}, reuse=reuse)
    group = "runs" if container.kind == "runs" else "artifact"
    if not waits:
        if state.json:
            print_json({"name": artifact.name, "container": container.name, "url": artifact.url})
        else:
            click.echo(f"{container.name}/{artifact.name}")
            print_note(f"Watch it with: bonseyes {group} wait {container.name}/{artifact.name}")
        return
    finish(state, artifact, timeout_s)


def finish(state: State, artifact: Artifact, timeout_s: float | None) -> None:
    """Wait, print the result, and exit 1 unless it is completed."""
    status = wait(state, artifact, timeout_s)
    if state.json:
        print_json(status.to_json())
    else:
        click.echo(summary(status))
    if status.phase != "completed":
        click.get_current_context().exit(FAILED)


def ask_all(things: Sequence[_K], ask: Callable[[_K], _T]) -> list[tuple[_K, _T]]:
    """Ask containers at the same time; those that do not answer are named on standard error and left out."""

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


@click.command(epilog="\b\nbonseyes artifacts training\nbonseyes artifacts digits-cnn --output-type com.bonseyes.model")
@click.argument("container", metavar="[CONTAINER|PIPELINE]", required=False, shell_complete=complete_container)
@click.option("--status", help="Only those with this phase or result, e.g. running.")
@click.option("--type", "kind", help="Only those of containers of this type: data, model or other. Of pipelines only.")
@click.option("--output-type", help="Only those of this type, e.g. com.bonseyes.model.")
@json_option
@pass_state
def artifacts(
    state: State, container: str | None, status: str | None, kind: str | None, output_type: str | None
) -> None:
    """List artifacts.

    Those of one container, of all containers of a pipeline, or of the whole project.
    """
    filters = {"status": status, "type": kind, "output_type": output_type}
    wanted = {key: value for key, value in filters.items() if value}
    if container is not None and state.project.container(container).kind == "runs":
        entries, silent = state.pipeline(container).survey(**wanted)
        for name in silent:
            print_note(f"{name}: does not answer")
        _print_pipeline_artifacts(state, entries)
        return
    if kind:
        raise click.UsageError("--type is of pipelines: bonseyes artifacts PIPELINE --type TYPE")
    names = [container] if container else sorted(state.project.containers())
    if container:
        found = [(container, _list(state.project.container(container)))]
    else:
        found = ask_all(names, lambda name: _list(state.project.container(name)))
    rows = [
        {"container": name, "output_type": made, **entry.to_json()}
        for name, (made, entries) in found
        for entry in entries
        if (not status or status in (entry.phase, entry.result)) and (not output_type or output_type == made)
    ]
    if state.json:
        print_json(rows)
        return
    print_table(
        ("ARTIFACT", "PHASE", "TYPE", "SIZE", "CREATED", "TOOK"),
        (
            (f"{row['container']}/{row['name']}", row["phase"], row["output_type"], size(row["size"]),
             age(row["created"]), duration(row["started"], row["finished"]))
            for row in rows
        ),
    )  # fmt: skip


def _list(container: Container) -> tuple[str, list[Status]]:
    description = container.describe()
    # The artifacts of a project are those of its tools; runs have a list of their own.
    return description.output_type, [] if description.collection == "/runs" else container.statuses()


def _print_pipeline_artifacts(state: State, entries: list[dict[str, Any]]) -> None:
    if state.json:
        print_json(entries)
        return
    print_table(
        ("ARTIFACT", "STATUS", "OUTPUT TYPE", "TYPE"),
        (
            (f"{entry.get('container')}/{entry.get('name')}", _phase(entry.get("status")),
             str(entry.get("output_type", "")), str(entry.get("type", "")))
            for entry in entries
        ),
    )  # fmt: skip


def _phase(status: Any) -> str:
    return str(status.get("phase", "")) if isinstance(status, dict) else str(status)


@click.group(cls=ExtensibleGroup, words=("artifact",), no_args_is_help=True)
def artifact() -> None:
    """Create and look into artifacts.

    Runs can be looked into in the same way, as PIPELINE/NAME.
    """


@artifact.command(
    epilog="\b\nbonseyes artifact create import/digits -f images=images.gz -f labels=labels.gz --wait\n"
    "bonseyes artifact create processing/small -p dataset=import/digits -p size=14"
)
@_address
@launch_options
@click.option("--reuse", is_flag=True, help="Take the result of an equal artifact if there is one.")
@json_option
@pass_state
def create(
    state: State,
    address: str,
    values: Sequence[str],
    files: Sequence[str],
    waits: bool,
    timeout_s: float | None,
    reuse: bool,
) -> None:
    """Create an artifact in a container.

    Prints its address at once, or with --wait its result.
    """
    handle = _find(state, address)
    words = (values, files)
    launch(state, handle.container, handle.name, words, reuse=reuse, waits=waits, timeout_s=timeout_s)


@click.command()
@_address
@json_option
@pass_state
def show(state: State, address: str) -> None:
    """Show what is known about one."""
    handle = _find(state, address)
    if state.json:
        print_json(handle.info())
        return
    status = handle.status()
    print_fields(
        (
            ("address", f"{handle.container.name}/{handle.name}"),
            ("phase", status.phase),
            ("reason", status.reason),
            ("position", status.position),
            ("progress", _progress(status)),
            ("created", status.created),
            ("started", status.started),
            ("finished", status.finished),
            ("took", duration(status.started, status.finished) if status.started else None),
            ("size", size(status.size)),
            ("digest", status.digest),
            ("reused from", status.reused_from),
            ("run id", status.run_id),
            ("dagster", status.dagster_url),
            *((f"-p {key}", value) for key, value in handle.input_parameters().items()),
            ("files", ", ".join(handle.input_files())),
        )
    )
    if status.steps:
        click.echo()
        rows = ((step.name, step.phase, f"{step.container}/{step.artifact}") for step in status.steps)
        print_table(("STEP", "PHASE", "ARTIFACT"), rows)


def _progress(status: Status) -> str:
    progress = status.progress
    if progress.done is None:
        return progress.message or ""
    total = "" if progress.total is None else f" of {progress.total:g}"
    return " ".join(filter(None, [f"{progress.done:g}{total}", progress.unit, progress.message]))


@click.command("wait")
@_address
@click.option("--timeout", "timeout_s", type=click.FloatRange(min=0), metavar="SECONDS",
              help="Give up after this long (exit 9); it goes on.")  # fmt: skip
@json_option
@pass_state
def wait_command(state: State, address: str, timeout_s: float | None) -> None:
    """Wait for one; exit 1 if it failed."""
    finish(state, _find(state, address), timeout_s)


@click.command(epilog="\b\nbonseyes artifact log training/first_train --follow")
@_address
@click.option("-f", "--follow", is_flag=True, help="Go on until it is final.")
@click.option("--offset", type=click.IntRange(min=0), default=0, metavar="BYTES", help="Begin here.")
@json_option
@pass_state
def log(state: State, address: str, follow: bool, offset: int) -> None:
    """Print its log.

    That of a run has the logs of all its steps in it, in order of time.
    """
    chunks = _find(state, address).iter_log(offset, follow)
    if state.json:
        print_json({"log": b"".join(chunks).decode(errors="replace")})
        return
    for chunk in chunks:
        sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()


@click.command()
@_address
@json_option
@pass_state
def files(state: State, address: str) -> None:
    """List its files: size, sha256, path."""
    manifest = _find(state, address).manifest()
    if state.json:
        print_json(manifest.to_json())
        return
    print_table(("SIZE", "SHA256", "PATH"), ((str(entry.size), entry.sha256, entry.path) for entry in manifest.files))


@click.command(
    epilog="\b\nbonseyes artifact data training/first_train -o model\n"
    "bonseyes artifact data benchmarking/first_benchmark report.json -o -"
)
@_address
@click.argument("path", required=False)
@click.option(
    "-o", "--output", metavar="TARGET", help="Folder (or, for one file, file) to write to; - is standard output."
)
@json_option
@pass_state
def data(state: State, address: str, path: str | None, output: str | None) -> None:
    """Fetch its files, or the one at PATH.

    Without -o they go into a folder with the artifact's name. What broke off goes on where it stopped, and every
    file is verified by its digest.
    """
    handle = _find(state, address)
    if output == "-":
        if path is None or state.json:
            raise click.UsageError("-o - takes one PATH and no --json")
        sys.stdout.buffer.write(handle.read(path))
        sys.stdout.buffer.flush()
        return
    if path is None:
        folder = Path(output or handle.name)
        with show_bytes(state, address) as on_progress:
            manifest = handle.download_all(folder, on_progress)
        written = [str(folder / entry.path) for entry in manifest.files]
    else:
        written = [str(handle.download(path, Path(output or PurePosixPath(path).name)))]
    if state.json:
        print_json({"written": written})
    else:
        click.echo("\n".join(written))


@click.command()
@_address
@click.option("--with-artifacts", is_flag=True, help="Remove what a run made in all containers, too. Of runs only.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@json_option
@pass_state
def delete(state: State, address: str, with_artifacts: bool, yes: bool) -> None:
    """Remove it; cancel it first if need be."""
    handle = _find(state, address)
    if with_artifacts and handle.container.kind != "runs":
        raise click.UsageError("--with-artifacts is of runs: PIPELINE/NAME")
    if not yes and sys.stdin.isatty() and not state.json:
        click.confirm(f"Remove {address}{' and all that it made' if with_artifacts else ''}?", abort=True, err=True)
    handle.delete(with_artifacts)
    _done(state, address, "removed")


@click.command()
@_address
@json_option
@pass_state
def cancel(state: State, address: str) -> None:
    """Cancel it; harmless when it has ended."""
    status = _find(state, address).cancel()
    if state.json:
        print_json(status.to_json())
    else:
        click.echo(f"{address} {'is being cancelled' if not status.is_final else status.phase}")


@click.command(
    epilog="\b\nbonseyes artifact metrics training/first_train\n"
    "bonseyes artifact metrics training/first_train validation_accuracy",
)
@_address
@click.argument("metric", required=False)
@json_option
@pass_state
def metrics(state: State, address: str, metric: str | None) -> None:
    """List its metrics, or the points of METRIC.

    The list has the last step and value of each; points are time, step and value.
    """
    handle = _find(state, address)
    if metric is not None:
        points, _ = handle.metric(metric)
        if state.json:
            print_json([asdict(point) for point in points])
        else:
            print_table(("TIME", "STEP", "VALUE"), ((f"{p.time:.3f}", str(p.step), f"{p.value:g}") for p in points))
        return
    points_of = ask_all(handle.metrics(), lambda name: handle.metric(name)[0])
    if state.json:
        print_json({name: [asdict(point) for point in points] for name, points in points_of})
    else:
        rows = ((name, str(points[-1].step), f"{points[-1].value:g}") for name, points in points_of if points)
        print_table(("METRIC", "STEP", "VALUE"), rows)


def _done(state: State, address: str, what: str) -> None:
    if state.json:
        print_json({"result": "success", "address": address})
    else:
        click.echo(f"{address} {what}")


SHARED: tuple[click.Command, ...] = (show, wait_command, log, files, data, metrics, cancel, delete)
for _command in SHARED:
    artifact.add_command(_command)

COMMANDS: tuple[click.Command, ...] = (artifacts, artifact)
