"""The `bonseyes` command. It parses and prints; the client library does the work.

Other packages add commands with entry points of the group `bonseyes.commands` (`up`, `tool run`, ...). Their commands
may use the names exported here and raise any BonseyesError. `main` prints the error and sets the exit code.
"""

from __future__ import annotations

from bonseyes_dagster.client.command._choices import suggestion
from bonseyes_dagster.client.command._main import cli, main
from bonseyes_dagster.client.command._printing.output import (
    clean,
    print_fields,
    print_json,
    print_note,
    print_table,
    size,
)
from bonseyes_dagster.client.command._printing.progress import show_bytes
from bonseyes_dagster.client.command._printing.terminal import escape, write_bytes
from bonseyes_dagster.client.command._state import State, json_option, pass_state

__all__ = [
    "State",
    "clean",
    "cli",
    "escape",
    "json_option",
    "main",
    "pass_state",
    "print_fields",
    "print_json",
    "print_note",
    "print_table",
    "show_bytes",
    "size",
    "suggestion",
    "write_bytes",
]
