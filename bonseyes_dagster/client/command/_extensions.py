"""Commands of other packages, found by the entry-point group `bonseyes.commands`."""

from __future__ import annotations

import functools
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import click

__all__ = ["ENTRY_POINT_GROUP", "ExtensibleGroup"]

ENTRY_POINT_GROUP = "bonseyes.commands"

_GROUP_HELP = {"tool": "Write and try tools."}


class ExtensibleGroup(click.Group):
    """A group to which entry points add commands: `up`, or `tool run` in a sub-group.

    It imports such a command only to call or to list it, so that other commands start fast. It does not list a command
    whose packages are not installed.
    """

    def __init__(self, *args: Any, words: tuple[str, ...] = (), **options: Any) -> None:
        super().__init__(*args, **options)
        self.words = words

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands that can be called."""
        added = (name for name in self._added() if name not in self.commands)
        return sorted([*self.commands, *(name for name in added if self._load(name) is not None)])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command of this group."""
        return super().get_command(ctx, cmd_name) or self._load(cmd_name, ctx)

    def _added(self) -> list[str]:
        depth = len(self.words)
        return sorted({words[depth] for words in _entry_points() if words[:depth] == self.words and words[depth:]})

    def _load(self, name: str, ctx: click.Context | None = None) -> click.Command | None:
        words = (*self.words, name)
        entry = _entry_points().get(words)
        if entry is None:
            group = ExtensibleGroup(name, words=words, help=_GROUP_HELP.get(name), no_args_is_help=True)
            return group if name in self._added() and group.list_commands(click.Context(group)) else None
        try:
            command = entry.load()
        except ModuleNotFoundError as error:
            if ctx is None or ctx.resilient_parsing:
                return None
            raise click.UsageError(
                f"`bonseyes {' '.join(words)}` needs {error.name}, which is not installed; "
                "run `pip install 'bonseyes-dagster[local]'`."
            ) from error
        return command if isinstance(command, click.Command) else None


@functools.cache
def _entry_points() -> dict[tuple[str, ...], EntryPoint]:
    return {tuple(entry.name.split()): entry for entry in entry_points(group=ENTRY_POINT_GROUP)}
