"""docs/command.md describes every command, option and exit code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from bonseyes_dagster.client.command import cli
from bonseyes_dagster.client.command._existing import SHARED
from bonseyes_dagster.client.command._exits import EXITS

REFERENCE = (Path(__file__).parents[3] / "docs" / "command.md").read_text(encoding="utf-8")
SHARED_NAMES = {command.name for command in SHARED}


def commands(
    group: click.Group, words: tuple[str, ...] = ("bonseyes",)
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield every command with its words; the commands that `runs` shares with `artifact` only once."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if words[-1] == "runs" and name in SHARED_NAMES:
            continue
        if isinstance(command, click.Group):
            yield from commands(command, (*words, name))
        else:
            yield (*words, name), command


COMMANDS = list(commands(cli))


def section(words: tuple[str, ...]) -> str:
    """Return the text below a command's heading."""
    found = re.search(rf"^### `{' '.join(words)}\b[^\n]*`\n(.*?)(?=^##|\Z)", REFERENCE, re.M | re.S)
    assert found, f"docs/command.md has no heading `{' '.join(words)}`"
    return found[1]


@pytest.mark.parametrize(("words", "command"), COMMANDS, ids=[" ".join(words) for words, _ in COMMANDS])
def test_every_command_and_option_is_documented(words: tuple[str, ...], command: click.Command) -> None:
    """Each command has a heading and help, and each of its options has a row and help."""
    text = section(words)
    assert command.help
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{words} {parameter.opts} has no help"
            for spelling in parameter.opts:
                assert re.search(rf"^\|[^|]*`{spelling}`", text, re.M), f"docs/command.md: {words} lacks {spelling}"


def test_every_documented_option_exists() -> None:
    """A removed option must leave the reference, too."""
    for words, command in COMMANDS:
        known = {spelling for parameter in command.params for spelling in parameter.opts}
        for row in re.findall(r"^\| (`-[^|]*)\|", section(words), re.M):
            assert set(re.findall(r"`(-[^`]*)`", row)) <= known, words


def test_root_options_are_documented() -> None:
    """These are the address, the token, JSON and the version."""
    for parameter in cli.params:
        assert f"| `{parameter.opts[0]}` |" in REFERENCE


def test_exit_codes_are_documented() -> None:
    """The table has the words of the code."""
    rows = re.findall(r"^\| (\d+) \| (.*) \|$", REFERENCE, re.M)
    assert [(int(code), text) for code, text in rows] == list(EXITS.items())
