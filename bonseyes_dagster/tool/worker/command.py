"""Run a tool that is a command: replace placeholders in its arguments by values, and start it without a shell."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bonseyes_dagster.errors import ToolError
from bonseyes_dagster.tool.artifacts.layout import Folder

__all__ = ["command_argv", "command_environment", "run_command"]

_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")


def command_argv(words: Sequence[str], values: Mapping[str, Any]) -> list[str]:
    """Return `words` with each `{NAME}` replaced by its value.

    A word that names an optional parameter without a value is left out, so write `--model={model}` as one word.
    """
    argv = []
    for word in words:
        names = _PLACEHOLDER.findall(word)
        if any(values.get(name) is None for name in names):
            continue
        argv.append(_PLACEHOLDER.sub(lambda match: command_text(values[match[1]]), word))
    return argv


def command_text(value: Any) -> str:
    """Return the value of a parameter as text for a command."""
    if isinstance(value, str | Path):
        return str(value)
    return json.dumps(value, separators=(",", ":"))


def command_environment(folder: Folder) -> dict[str, str]:
    """Return the variables that tell a command where to write."""
    return {
        "BONSEYES_OUTPUT": str(folder.staging),
        "BONSEYES_PARAMETERS": str(folder.parameters),
        "BONSEYES_METRICS": str(folder.metrics),
        "BONSEYES_PROGRESS": str(folder.progress),
        # The log must show its output at once.
        "PYTHONUNBUFFERED": "1",
    }


def run_command(words: Sequence[str], values: Mapping[str, Any], folder: Folder, cwd: Path) -> None:
    """Replace this process by the command, so that its exit status decides; raise ToolError if it cannot start."""
    argv = command_argv(words, values)
    plain = {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}
    folder.parameters.write_text(json.dumps(plain))
    folder.metrics.mkdir(exist_ok=True)
    os.chdir(cwd)
    os.environ.update(command_environment(folder))
    try:
        os.execvp(argv[0], argv)  # noqa: S606 - a shell must not interpret the values
    except (OSError, ValueError) as error:
        raise ToolError(f"The command {argv[0]!r} cannot be started: {error}") from error
