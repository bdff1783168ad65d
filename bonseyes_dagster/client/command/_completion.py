"""Shell completion: the shells' scripts, and the names of what is there."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import click
from click.shell_completion import CompletionItem, get_completion_class

from bonseyes_dagster.client import Project
from bonseyes_dagster.client.command._state import State
from bonseyes_dagster.errors import BonseyesError

__all__ = ["COMMANDS", "complete_address", "complete_container", "complete_parameter", "complete_pipeline"]

_SHELLS = ("bash", "zsh", "fish")


@click.command(
    epilog='\b\nFor this shell:  eval "$(bonseyes completion bash)"\nFor all of them: put that line into ~/.bashrc',
)
@click.argument("shell", type=click.Choice(_SHELLS))
def completion(shell: str) -> None:
    """Print a shell's completion script.

    With it the shell completes commands, options and the names of what is there.
    """
    script = get_completion_class(shell)
    if script is None:
        raise click.UsageError(f"cannot complete for {shell}")
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
    """Return CONTAINER/ until there is a slash, and the artifacts or runs of that container then."""
    container, slash, _ = incomplete.partition("/")
    if not slash:
        return _items(incomplete, lambda: [(f"{name}/", text) for name, text in _containers(context)])

    def names() -> Iterable[tuple[str, str]]:
        statuses = _project(context).container(container).statuses()
        return [(f"{container}/{status.name}", status.phase) for status in reversed(statuses)]

    return _items(incomplete, names)


def complete_parameter(context: click.Context, option: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return KEY= for the parameters of the container or pipeline that the command line names."""
    # An option without its value stops click before it gives out the arguments: they are still in `args` then.
    given = context.params.get("pipeline") or context.params.get("address") or next(iter(context.args), "")
    container = str(given).partition("/")[0]
    wants_files = option.name == "files"

    def keys() -> Iterable[tuple[str, str]]:
        described = _project(context).container(container).describe().parameters
        return [
            (f"{parameter.name}=", parameter.description or parameter.type)
            for parameter in described
            if (parameter.type == "file") == wants_files
        ]

    return _items(incomplete, keys) if container else []


def _containers(context: click.Context) -> list[tuple[str, str]]:
    return [(name, said.description if said else "") for name, said in _project(context).containers().items()]


def _project(context: click.Context) -> Project:
    # Callbacks do not run while completing: the root's options are taken from where click left them.
    root = context.find_root().params
    return State(url=root.get("url"), token=root.get("token"), retry_s=0.0).project


def _items(incomplete: str, names: Callable[[], Iterable[tuple[str, str]]]) -> list[CompletionItem]:
    try:
        return [CompletionItem(name, help=text) for name, text in names() if name.startswith(incomplete)]
    except BonseyesError:
        # A shell has no place for an error while it completes.
        return []


COMMANDS = (completion,)
