"""`bonseyes artifacts` lists artifacts; the sub-commands of `bonseyes artifact` create, show and change one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from bonseyes_dagster.client import Container
from bonseyes_dagster.client.command._choices import Choice, check_choice
from bonseyes_dagster.client.command._completion import complete_container, complete_output_type
from bonseyes_dagster.client.command._existing import SHARED
from bonseyes_dagster.client.command._extensions import ExtensibleGroup
from bonseyes_dagster.client.command._launching import (
    address_argument,
    ask_all,
    find_artifact,
    launch,
    launch_options,
)
from bonseyes_dagster.client.command._printing.output import (
    age,
    clean,
    duration,
    print_json,
    print_note,
    print_table,
    size,
)
from bonseyes_dagster.client.command._state import State, json_option, pass_state
from bonseyes_dagster.model import TERMINAL_PHASES, Status

__all__ = ["COMMANDS"]

STATUSES = ("in-progress", "queued", "running", *sorted(TERMINAL_PHASES))
KINDS = ("data", "model", "other")


@click.command(epilog="\b\nbonseyes artifacts training\nbonseyes artifacts digits-cnn --output-type com.bonseyes.model")
@click.argument("container", metavar="[CONTAINER|PIPELINE]", required=False, shell_complete=complete_container)
@click.option(
    "--status", type=Choice(STATUSES), metavar="STATUS", help="List only those with this phase or result, e.g. running."
)
@click.option(
    "--type",
    "kind",
    type=Choice(KINDS),
    metavar="TYPE",
    help="List only those of containers of this type: data, model or other. For a PIPELINE only.",
)
@click.option(
    "--output-type", shell_complete=complete_output_type, help="List only those of this type, e.g. com.bonseyes.model."
)
@json_option
@pass_state
def artifacts(
    state: State, container: str | None, status: str | None, kind: str | None, output_type: str | None
) -> None:
    """List the artifacts of one container, of all containers of a pipeline, or of the whole project."""
    filters = {"status": status, "type": kind, "output_type": output_type}
    wanted = {key: value for key, value in filters.items() if value}
    if container is not None and state.project.container(container).kind == "runs":
        pipeline = state.pipeline(container)
        if output_type:
            infos = [each.get("info") or {} for each in pipeline.containers()]
            # A container that does not answer may have any output type.
            if all(infos):
                check_choice(output_type, {str(each.get("output_type")) for each in infos}, "--output-type")
        entries, unreachable = pipeline.survey(**wanted)
        for name in unreachable:
            print_note(f"{name} does not answer.")
        _print_pipeline_artifacts(state, entries)
        return
    if kind:
        raise click.UsageError("--type is for pipelines only: bonseyes artifacts PIPELINE --type TYPE.")
    names = [container] if container else sorted(state.project.containers())
    if container:
        found = [(container, _list(state.project.container(container)))]
    else:
        found = ask_all(names, lambda name: _list(state.project.container(name)))
    if output_type and len(found) == len(names):
        check_choice(output_type, {made for _, (made, _) in found}, "--output-type")
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
    # Only tools have artifacts: `bonseyes runs` lists the runs of pipelines.
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
    """Create, show and change artifacts.

    Most sub-commands also take a run, as PIPELINE/NAME.
    """


@artifact.command(
    epilog="\b\nbonseyes artifact create import/digits -f images=images.gz -f labels=labels.gz --wait\n"
    "bonseyes artifact create processing/small -p dataset=import/digits -p size=14"
)
@address_argument
@launch_options
@click.option("--reuse", is_flag=True, help="Take the result of an equal artifact, if there is one.")
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

    Prints its address at once; with --wait, prints its result.
    """
    handle = find_artifact(state, address)
    words = (values, files)
    launch(state, handle.container, handle.name, words, reuse=reuse, waits=waits, timeout_s=timeout_s)


@artifact.command(epilog="\b\nbonseyes artifact rename training/first_train best-of-may")
@address_argument
@click.argument("name")
@json_option
@pass_state
def rename(state: State, address: str, name: str) -> None:
    """Give a final artifact another NAME.

    Its URL under the old name stops working. Artifacts that were made from it show its new name.
    """
    handle = find_artifact(state, address)
    if handle.container.kind == "runs":
        raise click.UsageError("A run cannot be renamed: its name is part of the names of its artifacts.")
    renamed = handle.rename(name)
    if state.json:
        print_json({"result": "success", "address": f"{handle.container.name}/{renamed.name}", "url": renamed.url})
    else:
        click.echo(clean(f"{address} is now {handle.container.name}/{renamed.name}."))


for _command in SHARED:
    artifact.add_command(_command)

COMMANDS: tuple[click.Command, ...] = (artifacts, artifact)
