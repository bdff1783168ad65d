"""Text of servers cannot control the terminal that shows it."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

from bonseyes_dagster.client.command._printing.terminal import escape

EVIL = (
    b"title \x1b]0;owned\x07 clear \x1b[2J \xc2\x9b31m \xe2\x80\xae green \x1b[32mok\x1b[0m\t"
    b"tab\r\nnext\rhidden \xff end\n"
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\n\ttext é \U0001f600 \xa0", "plain\n\ttext é \U0001f600 \xa0"),
        ("\x1b]52;c;AAAA\x07", "\\x1b]52;c;AAAA\\x07"),
        ("\x1b[2J\x1b[31mred", "\\x1b[2J\x1b[31mred\x1b[0m"),
        ("a\rb\r\nc", "a\nb\nc"),
        ("\x9b31m\x7f\x00\u202e", "\\x9b31m\\x7f\\x00\\u202e"),
    ],
)
def test_control_characters_are_written_out_except_colours(text: str, shown: str) -> None:
    """A server must not change the title, the clipboard, the cursor or the direction of writing."""
    assert escape(text) == shown


def run(stdout: int) -> None:
    """Write EVIL byte by byte, in a separate process."""
    code = (
        "import sys; from bonseyes_dagster.client.command._printing.terminal import write_bytes\n"
        f"write_bytes(bytes([byte]) for byte in {EVIL!r})"
    )
    subprocess.run([sys.executable, "-c", code], stdout=stdout, check=True, timeout=60)


def test_terminal_gets_escaped_text_and_pipe_gets_the_bytes() -> None:
    """An escape sequence is found even if it arrives in pieces."""
    ours, theirs = pty.openpty()
    run(theirs)
    os.close(theirs)
    shown = os.read(ours, 65536).replace(b"\r\n", b"\n")
    os.close(ours)
    assert shown.count(b"\x1b") == shown.count(b"\x1b[32m") + shown.count(b"\x1b[0m")
    assert b"\\x1b]0;owned\\x07 clear \\x1b[2J \\x9b31m \\u202e green \x1b[32m" in shown
    assert b"\nnext\nhidden" in shown
    ours, theirs = os.pipe()
    run(theirs)
    os.close(theirs)
    assert os.read(ours, 65536) == EVIL
    os.close(ours)
