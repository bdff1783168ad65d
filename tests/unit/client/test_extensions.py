"""Commands of other packages appear where their names say, and only if they can be loaded."""

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
def lose():
    """Lose something."""
    raise NotFoundError("lost")
'''
ENTRY_POINTS = """[bonseyes.commands]
hello = extension_for_test:hello
probe run = extension_for_test:hello
probe lose = extension_for_test:lose
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
    """Return what the command exits with."""
    with pytest.raises(SystemExit) as exited:
        main(argv)
    return int(exited.value.code or 0)


def test_they_are_called_with_the_state(capsys: pytest.CaptureFixture[str]) -> None:
    """A command of its own, and one in a group that two words make, are given the root's options."""
    assert run("--url", "http://127.0.0.1:7", "hello") == 0
    assert run("--url", "http://127.0.0.1:7", "probe", "run") == 0
    assert capsys.readouterr().out == "hello http://127.0.0.1:7\n" * 2


def test_their_errors_are_told_as_ours_are(capsys: pytest.CaptureFixture[str]) -> None:
    """They raise, the root prints and exits."""
    assert run("probe", "lose") == 3
    assert capsys.readouterr().err == "bonseyes: lost\n"


def test_what_cannot_be_loaded_does_not_show(capsys: pytest.CaptureFixture[str]) -> None:
    """Help lists what works; calling the rest says what is missing."""
    assert run("--help") == 0
    listed = capsys.readouterr().out
    assert "hello" in listed
    assert "probe" in listed
    assert "broken" not in listed
    assert " far" not in listed
    assert run("broken") == 2
    assert "needs package_that_is_not_installed" in capsys.readouterr().err


def test_our_own_cannot_be_replaced() -> None:
    """A name that the client has is the client's."""
    from bonseyes_dagster.client.command import cli

    context = click.Context(cli)
    assert cli.get_command(context, "run") is cli.commands["run"]
