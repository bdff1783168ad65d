"""Tables on terminals of any width: names stay whole, and other columns make room."""

import io
from collections.abc import Sequence

import click
import pytest

from bonseyes_dagster.client.command._printing import output as _output
from bonseyes_dagster.client.command._printing.output import print_table

NAME = "benchmarking/a-run-with-a-name-of-some-length_benchmark"
ARTIFACTS = ("ARTIFACT", "PHASE", "TYPE", "SIZE", "CREATED", "TOOK")
FILES = ("SIZE", "SHA256", "PATH")
CONTAINERS = ("CONTAINER", "STATUS", "DESCRIPTION")


class Terminal(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self) -> bool:
        """Return True."""
        return True


@pytest.mark.parametrize("width", [40, 60, 80, 200])
@pytest.mark.parametrize(
    ("columns", "row", "names"),
    [
        (ARTIFACTS, (NAME, "completed", "com.bonseyes.benchmark", "1.2 MB", "3 min ago", "2.5 s"), ()),
        (FILES, ("123", "d" * 64, f"pictures/{NAME}"), ("PATH",)),
        (CONTAINERS, (NAME[:20], "started", "Says in many words what it does " * 3), ()),
    ],
)
def test_names_are_whole_on_every_terminal(
    monkeypatch: pytest.MonkeyPatch, width: int, columns: Sequence[str], row: Sequence[str], names: Sequence[str]
) -> None:
    """A user can copy each name from one line, and no cell is cut off with dots."""
    out, notes = Terminal(), list[str]()
    monkeypatch.setattr("sys.stdout", out)
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr(_output, "print_note", notes.append)
    print_table(columns, [row, row], names=names)
    text = click.unstyle(out.getvalue())
    lines = text.splitlines()
    key = row[columns.index(names[0])] if names else row[0]
    assert sum(key in line for line in lines) == 2
    assert "…" not in text
    shown = [column for column in columns if column in lines[0].split()]
    assert len(notes) == (len(shown) < len(columns))
    assert max(map(len, lines)) <= max(width, len(key))
    if width == 200:
        assert shown == list(columns)


def test_other_programs_get_every_column(capsys: pytest.CaptureFixture[str]) -> None:
    """A pipe has no width to fit into."""
    print_table(ARTIFACTS, [(NAME, "completed", "t", "1 B", "now", "1 s")])
    assert capsys.readouterr().out == f"{NAME}\tcompleted\tt\t1 B\tnow\t1 s\n"


def test_table_without_rows_has_its_headings(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty list is not an error."""
    out = Terminal()
    monkeypatch.setattr("sys.stdout", out)
    monkeypatch.setenv("COLUMNS", "80")
    print_table(FILES, [])
    assert click.unstyle(out.getvalue()).split() == list(FILES)
