"""The artifacts of this component's tools: files to read, files to write, metrics and progress.

All tools and all modules of this package read and write artifacts through these types.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from bonseyes_dagster.errors import ToolError

__all__ = ["Folder", "Source", "Target", "Work", "read_description", "write_json"]


class Source(Protocol):
    """An artifact to read: the value of a tool's `artifact` parameter, or a Folder."""

    def path(self, path: str, /) -> Path:
        """Return the file's path on this machine."""

    def json(self, path: str, /) -> Any:
        """Return the JSON document that the file holds."""


class Target(Protocol):
    """An artifact to write files to: a tool's `artifact`, or a Folder."""

    def path(self, path: str, /) -> Path:
        """Return the path to write the file to. Its folder exists."""


class Work(Target, Protocol):
    """The artifact that a tool makes. Beside writing files, the tool reports metrics and progress."""

    def scalar(self, name: str, step: int, value: float, /) -> None:
        """Add a point to a metric."""

    def set_progress(self, done: int, total: int, unit: str = "", message: str = "", /) -> None:
        """Report the progress."""


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder of this machine as an artifact, for scripts and notebooks."""

    folder: Path

    def path(self, path: str, /) -> Path:
        """Return the file's path, after creating its folder."""
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        return target

    def json(self, path: str, /) -> Any:
        """Return the JSON document that the file holds."""
        return json.loads((self.folder / path).read_bytes())


def write_json(target: Target, path: str, document: Mapping[str, Any]) -> None:
    """Write a description as JSON: UTF-8, indented, with a newline at the end."""
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
    target.path(path).write_text(text + "\n", encoding="utf-8")


def read_description(source: Source, path: str, artifact_format: str, version: int) -> dict[str, Any]:
    """Return an artifact's JSON description. Raise ToolError when its format or its version is another one."""
    try:
        document = source.json(path)
    except ValueError as error:
        raise ToolError(f"{path} is not JSON: {error}.") from error
    if not isinstance(document, dict) or document.get("format") != artifact_format:
        raise ToolError(f"{path} does not describe a {artifact_format}; its `format` must be `{artifact_format}`.")
    if document.get("format_version") != version:
        raise ToolError(
            f"{path} has format version {document.get('format_version')}; this tool reads version {version}."
        )
    return document
