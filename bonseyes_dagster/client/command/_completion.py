"""Shell completion: the scripts for the shells, and the names that exist in the project."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

import click
from click.shell_completion import CompletionItem, get_completion_class

from bonseyes_dagster.client import Artifact, Project
from bonseyes_dagster.client.command import _bash  # noqa: F401 - it replaces click's completion in bash
from bonseyes_dagster.client.command._state import State
from bonseyes_dagster.errors import BonseyesError
from bonseyes_dagster.model import Parameter, python_name

__all__ = [
    "COMMANDS",
    "complete_address",
    "complete_container",
    "complete_file",
    "complete_metric",
    "complete_output_type",
    "complete_parameter",
    "complete_pipeline",
]

_SHELLS = ("bash", "zsh", "fish")


@click.command(
    epilog='\b\nFor this shell:  eval "$(bonseyes completion bash)"\nFor every shell: put that line into ~/.bashrc',
)
@click.argument("shell", type=click.Choice(_SHELLS))
def completion(shell: str) -> None:
    """Print a shell's completion script.

    With it, the shell completes commands, options and the names that exist in the project.
    """
    script = get_completion_class(shell)
    if script is None:
        raise click.UsageError(f"There is no completion for {shell}.")
    click.echo(script(click.Command("bonseyes"), {}, "bonseyes", "_BONSEYES_COMPLETE").source())


def complete_pipeline(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the pipelines' containers that begin with `incomplete`."""
    return _items(
        incomplete,
        lambda: [
            (str(entry["container"]), str(entry.get("description", ""))) for entry in _project(context).pipelines()
        ],
    )


def complete_container(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the containers that begin with `incomplete`."""
    return _items(incomplete, lambda: _containers(context))


def complete_address(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return `CONTAINER/` words before the slash, and the addresses of that container's artifacts or runs after it."""
    return _items(incomplete, lambda: _addresses(context, incomplete))


def complete_file(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the files of the artifact on the command line."""
    return _items(incomplete, lambda: [(entry.path, "") for entry in _artifact(context).manifest().files])


def complete_metric(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the metrics of the artifact on the command line."""
    return _items(incomplete, lambda: [(name, "") for name in _artifact(context).metrics()])


def complete_output_type(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the output types that the project's containers make."""

    def types() -> Iterable[tuple[str, str]]:
        descriptions = _project(context).containers().values()
        return sorted({(description.output_type, "") for description in descriptions if description})

    return _items(incomplete, types)


def complete_parameter(context: click.Context, option: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return `KEY=` for each parameter of the container on the command line; after the `=`, return values."""
    # At an option without its value, click stops before it fills in the arguments: they are still in `args`.
    given = context.params.get("pipeline") or context.params.get("address") or next(iter(context.args), "")
    container = str(given).partition("/")[0]
    wants_files = option.name == "files"
    key, has_key, value = incomplete.partition("=")

    def words() -> Iterable[tuple[str, str]]:
        if has_key and wants_files:
            return [(f"{key}={path}", "") for path in _paths(value)]
        described = _project(context).container(container).describe().parameters
        if has_key:
            wanted = [each for each in described if python_name(each.name) == python_name(key)]
            return [(f"{key}={word}", text) for each in wanted for word, text in _values(context, each, value)]
        return [
            (f"{parameter.name}=", parameter.description or parameter.type)
            for parameter in described
            if (parameter.type == "file") == wants_files
        ]

    return _items(incomplete, words) if container else []


def _values(context: click.Context, parameter: Parameter, value: str) -> Iterable[tuple[str, str]]:
    """Return the known values of a parameter, each with a help text."""
    if parameter.type == "artifact":
        return _addresses(context, value)
    if parameter.type == "json" and value.startswith("@"):
        return [(f"@{path}", "") for path in _paths(value[1:])]
    known = ("true", "false") if parameter.type == "boolean" else parameter.choices
    return [(word, "") for word in known or ()]


def _addresses(context: click.Context, incomplete: str) -> Iterable[tuple[str, str]]:
    container, slash, _ = incomplete.partition("/")
    if not slash:
        return [(f"{name}/", text) for name, text in _containers(context)]
    statuses = _project(context).container(container).statuses()
    return [(f"{container}/{status.name}", status.phase) for status in reversed(statuses)]


def _paths(incomplete: str) -> list[str]:
    """Return the paths that begin with `incomplete`; a folder's path ends with a slash."""
    folder, name = os.path.split(incomplete)
    try:
        found = sorted(Path(folder or ".").expanduser().iterdir())
    except OSError:
        return []
    return [
        f"{os.path.join(folder, each.name)}{'/' if each.is_dir() else ''}"  # noqa: PTH118 - keeps `~` and `./`
        for each in found
        if each.name.startswith(name) and (name or not each.name.startswith("."))
    ]


def _artifact(context: click.Context) -> Artifact:
    container, _, name = str(context.params.get("address") or next(iter(context.args), "")).partition("/")
    return _project(context).container(container).artifact(name)


def _containers(context: click.Context) -> list[tuple[str, str]]:
    found = _project(context).containers()
    return [(name, described.description if described else "") for name, described in found.items()]


def _project(context: click.Context) -> Project:
    # click runs no callbacks while it completes, so read the root's options from its context.
    root = context.find_root().params
    return State(url=root.get("url"), token=root.get("token"), retry_s=0.0).project


def _items(incomplete: str, names: Callable[[], Iterable[tuple[str, str]]]) -> list[CompletionItem]:
    try:
        return [CompletionItem(name, help=text) for name, text in names() if name.startswith(incomplete)]
    except BonseyesError:
        # A shell cannot show an error while it completes.
        return []


COMMANDS = (completion,)
