"""What the tools of this component need from artifacts: files to read, files to write, metrics and progress."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from bonseyes_dagster.errors import ToolError

__all__ = ["Folder", "Source", "Target", "Work", "read_description", "write_json"]


class Source(Protocol):
    """An artifact to read: an `artifact` parameter as a tool gets it, or a Folder."""

    def path(self, path: str, /) -> Path:
        """Return where the file lies on this machine."""

    def json(self, path: str, /) -> Any:
        """Return the JSON document that the file holds."""


class Target(Protocol):
    """An artifact to write files to: a tool's `artifact`, or a Folder."""

    def path(self, path: str, /) -> Path:
        """Return where to write the file; its folder exists."""


class Work(Target, Protocol):
    """The artifact that a tool is making: what it may report beside writing files."""

    def scalar(self, name: str, step: int, value: float, /) -> None:
        """Add a point to a metric."""

    def set_progress(self, done: int, total: int, unit: str = "", message: str = "", /) -> None:
        """Tell how far the work is."""


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder of this machine as an artifact, for scripts and notebooks."""

    folder: Path

    def path(self, path: str, /) -> Path:
        """Return the file's place; its folder exists."""
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        return target

    def json(self, path: str, /) -> Any:
        """Return the JSON document that the file holds."""
        return json.loads((self.folder / path).read_bytes())


def write_json(target: Target, path: str, document: Mapping[str, Any]) -> None:
    """Write a description: UTF-8, indented, ending with a newline."""
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
    target.path(path).write_text(text + "\n", encoding="utf-8")


def read_description(source: Source, path: str, artifact_format: str, version: int) -> dict[str, Any]:
    """Return an artifact's JSON description; ToolError when it is not of the format and version that is read here."""
    try:
        document = source.json(path)
    except ValueError as error:
        raise ToolError(f"{path} is not JSON: {error}.") from error
    if not isinstance(document, dict) or document.get("format") != artifact_format:
        raise ToolError(f"{path} does not describe a {artifact_format}: its `format` says otherwise.")
    if document.get("format_version") != version:
        raise ToolError(
            f"{path} is of format version {document.get('format_version')}; this tool reads version {version}."
        )
    return document
