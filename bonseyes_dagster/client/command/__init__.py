"""The `bonseyes` command: parsing and printing; what it does lies in the client library.

Other packages add commands with entry points of the group `bonseyes.commands` (`up`, `tool run`, ...). They may
use what is named here, raise any BonseyesError, and leave exit codes and messages to `main`.
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
