"""The public face of the client."""

from __future__ import annotations

import subprocess
import sys

from bonseyes_dagster import client
from bonseyes_dagster.client import command

FORBIDDEN = ("click", "rich", "flask", "dagster", "yaml", "numpy")


def test_all_is_sorted_and_complete() -> None:
    """What is public is named, in order, and is there."""
    assert client.__all__ == ["Addresses", "Artifact", "Container", "FileSource", "Project"]
    assert command.__all__ == sorted(command.__all__)
    for module in (client, command):
        for name in module.__all__:
            assert hasattr(module, name)


def test_importing_the_client_needs_little() -> None:
    """A program that uses the client loads neither the command's libraries nor any service's."""
    loaded = f"import sys, bonseyes_dagster.client; print([m for m in {FORBIDDEN} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_the_command_starts_without_what_it_may_not_need() -> None:
    """`bonseyes` draws with rich only on a terminal, so it does not load it before."""
    loaded = "import sys, bonseyes_dagster.client.command; print('rich' in sys.modules, 'flask' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "False False"
