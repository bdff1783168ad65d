"""Commands of other packages appear at their place in the tree of commands, if they can be loaded."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from bonseyes_dagster.client.command import _extensions, main

MODULE = '''
import click
from bonseyes_dagster.client.command import pass_state
from bonseyes_dagster.errors import NotFoundError

@click.command()
@pass_state
def hello(state):
    """Say hello."""
    click.echo(f"hello {state.project.transport.base_url}")

@click.command()
def fail():
    """Fail."""
    raise NotFoundError("There is no such thing.")
'''
ENTRY_POINTS = """[bonseyes.commands]
hello = extension_for_test:hello
probe run = extension_for_test:hello
probe fail = extension_for_test:fail
broken = package_that_is_not_installed.commands:command
far broken = package_that_is_not_installed.commands:command
"""


@pytest.fixture(autouse=True)
def extension(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Install a distribution with commands."""
    (tmp_path / "extension_for_test.py").write_text(MODULE)
    info = tmp_path / "extension_for_test-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: extension-for-test\nVersion: 1\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(str(tmp_path))
    _extensions._entry_points.cache_clear()
    yield
    _extensions._entry_points.cache_clear()
    sys.modules.pop("extension_for_test", None)


def run(*argv: str) -> int:
    """Return the exit code of the command."""
    with pytest.raises(SystemExit) as exited:
        main(argv)
    return int(exited.value.code or 0)


def test_command_of_an_extension_gets_the_root_options(capsys: pytest.CaptureFixture[str]) -> None:
    """This holds for a command of one word, and for a command of two words in a group."""
    assert run("--url", "http://127.0.0.1:7", "hello") == 0
    assert run("--url", "http://127.0.0.1:7", "probe", "run") == 0
    assert capsys.readouterr().out == "hello http://127.0.0.1:7\n" * 2


def test_error_of_an_extension_is_printed_like_our_own(capsys: pytest.CaptureFixture[str]) -> None:
    """A command only raises; the root prints the error and sets the exit code."""
    assert run("probe", "fail") == 3
    assert capsys.readouterr().err == "bonseyes: There is no such thing.\n"


def test_command_that_cannot_be_loaded_is_not_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """Help lists only commands that work; a call of another one names the missing package."""
    assert run("--help") == 0
    listed = capsys.readouterr().out
    assert "hello" in listed
    assert "probe" in listed
    assert "broken" not in listed
    assert " far" not in listed
    assert run("broken") == 2
    assert "needs package_that_is_not_installed" in capsys.readouterr().err


def test_extension_cannot_replace_our_own_command() -> None:
    """Another package must not change the meaning of our commands."""
    from bonseyes_dagster.client.command import cli

    context = click.Context(cli)
    assert cli.get_command(context, "run") is cli.commands["run"]
