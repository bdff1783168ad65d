"""The public names of the client, and its imports."""

from __future__ import annotations

import subprocess
import sys

from bonseyes_dagster import client
from bonseyes_dagster.client import command

FORBIDDEN = ("click", "rich", "flask", "dagster", "yaml", "numpy")


def test_all_is_sorted_and_complete() -> None:
    """`__all__` lists every public name in order, and each name exists."""
    assert client.__all__ == ["Addresses", "Artifact", "Container", "FileSource", "Project"]
    assert command.__all__ == sorted(command.__all__)
    for module in (client, command):
        for name in module.__all__:
            assert hasattr(module, name)


def test_client_imports_no_heavy_package() -> None:
    """A program that uses the client loads neither the libraries of the command nor those of the services."""
    loaded = f"import sys, bonseyes_dagster.client; print([m for m in {FORBIDDEN} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_command_imports_rich_only_when_it_draws() -> None:
    """The import of rich takes time, and only a terminal needs it."""
    loaded = "import sys, bonseyes_dagster.client.command; print('rich' in sys.modules, 'flask' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "False False"
