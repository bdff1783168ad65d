"""The sub-commands that `bonseyes artifact` and `bonseyes runs` share; each takes an existing artifact or run."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path, PurePosixPath

import click

from bonseyes_dagster.client import Artifact
from bonseyes_dagster.client.command._completion import complete_file, complete_metric
from bonseyes_dagster.client.command._launching import address_argument, ask_all, find_artifact, finish
from bonseyes_dagster.client.command._printing.output import (
    clean,
    duration,
    print_fields,
    print_json,
    print_table,
    size,
)
from bonseyes_dagster.client.command._printing.progress import show_bytes
from bonseyes_dagster.client.command._printing.terminal import write_bytes
from bonseyes_dagster.client.command._state import State, json_option, pass_state
from bonseyes_dagster.model import Status, Step

__all__ = ["SHARED"]


@click.command()
@address_argument
@json_option
@pass_state
def show(state: State, address: str) -> None:
    """Show the status, times, size and parameters of an artifact or a run."""
    handle = find_artifact(state, address)
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
            ("code", "changed since the start; never re-used" if status.code_changed else None),
            ("run id", status.run_id),
            ("dagster", status.dagster_url),
            *((f"-p {key}", value) for key, value in handle.input_parameters().items()),
            ("files", ", ".join(handle.input_files())),
        )
    )
    if status.steps:
        click.echo()
        rows = ((step.name, step.phase, _address_of(step)) for step in status.steps)
        print_table(("STEP", "PHASE", "ARTIFACT"), rows, names=("STEP", "ARTIFACT"))


def _address_of(step: Step) -> str:
    return f"{step.container}/{step.artifact}" if step.is_selected else ""


def _progress(status: Status) -> str:
    progress = status.progress
    if progress.done is None:
        return progress.message or ""
    total = "" if progress.total is None else f" of {progress.total:g}"
    return " ".join(filter(None, [f"{progress.done:g}{total}", progress.unit, progress.message]))


def _existing(state: State, address: str) -> Artifact:
    """Return an artifact or run that answers now; a wait for a project that is down would take a minute."""
    handle = find_artifact(state, address)
    handle.status()
    return handle


@click.command("wait")
@address_argument
@click.option("--timeout", "timeout_s", type=click.FloatRange(min=0), metavar="SECONDS",
              help="Stop waiting after this time (exit 9); the artifact or run goes on.")  # fmt: skip
@json_option
@pass_state
def wait_command(state: State, address: str, timeout_s: float | None) -> None:
    """Wait for an artifact or a run; exit 1 if it failed."""
    finish(state, _existing(state, address), timeout_s)


@click.command(epilog="\b\nbonseyes artifact log training/first_train --follow")
@address_argument
@click.option("-f", "--follow", is_flag=True, help="Go on until the artifact or run is final.")
@click.option("--offset", type=click.IntRange(min=0), default=0, metavar="BYTES", help="Begin at this byte.")
@json_option
@pass_state
def log(state: State, address: str, follow: bool, offset: int) -> None:
    """Print the log of an artifact or a run.

    The log of a run holds the logs of all its steps, in order of time.
    """
    chunks = _existing(state, address).iter_log(offset, follow)
    if state.json:
        print_json({"log": b"".join(chunks).decode(errors="replace")})
        return
    write_bytes(chunks)


@click.command()
@address_argument
@json_option
@pass_state
def files(state: State, address: str) -> None:
    """List the files of an artifact or a run: size, sha256, path."""
    manifest = find_artifact(state, address).manifest()
    if state.json:
        print_json(manifest.to_json())
        return
    rows = ((str(entry.size), entry.sha256, entry.path) for entry in manifest.files)
    print_table(("SIZE", "SHA256", "PATH"), rows, names=("PATH",))


@click.command(
    epilog="\b\nbonseyes artifact data training/first_train -o model\n"
    "bonseyes artifact data benchmarking/first_benchmark report.json -o -"
)
@address_argument
@click.argument("path", required=False, shell_complete=complete_file)
@click.option(
    "-o",
    "--output",
    type=click.Path(allow_dash=True),
    metavar="TARGET",
    help="The folder to write to, or with PATH the file; - is standard output.",
)
@json_option
@pass_state
def data(state: State, address: str, path: str | None, output: str | None) -> None:
    """Download all files of an artifact or a run, or the file at PATH.

    Without -o, the files go into a folder with the artifact's name. A broken download continues where it stopped.
    The digest of every file is verified.
    """
    handle = find_artifact(state, address)
    if output == "-":
        if path is None or state.json:
            raise click.UsageError("-o - needs a PATH, and does not go with --json.")
        write_bytes([handle.read(path)])
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
        click.echo(clean("\n".join(written)))


@click.command()
@address_argument
@click.option(
    "--with-artifacts", is_flag=True, help="Also remove the run's artifacts in all containers. For runs only."
)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@json_option
@pass_state
def delete(state: State, address: str, with_artifacts: bool, yes: bool) -> None:
    """Remove an artifact or a run; cancel it first if it is not final."""
    handle = find_artifact(state, address)
    if with_artifacts and handle.container.kind != "runs":
        raise click.UsageError("--with-artifacts is for runs only: PIPELINE/NAME.")
    if not yes and sys.stdin.isatty() and not state.json:
        click.confirm(f"Remove {address}{' and all its artifacts' if with_artifacts else ''}?", abort=True, err=True)
    kept = handle.delete(with_artifacts)
    if state.json:
        print_json({"result": "success", "address": address, "kept": kept})
        return
    click.echo(f"{address} removed")
    for url in kept:
        click.echo(clean(f"  stays: {url}"))


@click.command()
@address_argument
@json_option
@pass_state
def cancel(state: State, address: str) -> None:
    """Cancel an artifact or a run; a final one stays as it is."""
    status = find_artifact(state, address).cancel()
    if state.json:
        print_json(status.to_json())
    else:
        click.echo(clean(f"{address} {'is being cancelled' if not status.is_final else status.phase}"))


@click.command(
    epilog="\b\nbonseyes artifact metrics training/first_train\n"
    "bonseyes artifact metrics training/first_train validation_accuracy",
)
@address_argument
@click.argument("metric", required=False, shell_complete=complete_metric)
@json_option
@pass_state
def metrics(state: State, address: str, metric: str | None) -> None:
    """List the metrics of an artifact or a run, or the points of METRIC.

    The list has the last step and value of each metric. A point is a time, a step and a value.
    """
    handle = find_artifact(state, address)
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
        print_table(("METRIC", "STEP", "VALUE"), rows, names=("METRIC", "VALUE"))


SHARED: tuple[click.Command, ...] = (show, wait_command, log, files, data, metrics, cancel, delete)
