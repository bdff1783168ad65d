"""What one tool container is made of: the environment and tool.yml, read once and refused early."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import sys
from functools import cache
from pathlib import Path

from bonseyes_dagster.description import ToolFolder, load_tool
from bonseyes_dagster.errors import SettingsError
from bonseyes_dagster.model import ToolDescription
from bonseyes_dagster.settings import Settings
from bonseyes_dagster.tool.layout import Volume

__all__ = ["load"]

# What else tells one image from another: a text, such as its digest, or a file, such as the list of Debian's packages.
IMAGE_VARIABLE = "BONSEYES_IMAGE"


@cache
def load() -> tuple[ToolFolder, ToolDescription, Volume, Settings]:
    """Read the environment and tool.yml; raise SettingsError with everything that is wrong."""
    settings = Settings.from_environ()
    if settings.tool is None:
        raise SettingsError("BONSEYES_TOOL must name the folder with the tool's tool.yml.")
    if settings.volume is None:
        raise SettingsError("BONSEYES_VOLUME must name the folder that keeps the artifacts.")
    tool = load_tool(settings.tool)
    return tool, _described(tool), Volume(settings.volume), settings


def _described(tool: ToolFolder) -> ToolDescription:
    """Return the description with a version that changes with the image, too: its Python and its packages."""
    # The folders' names hold names and versions; to read each package's metadata takes a second.
    folders = (Path(entry) for entry in sys.path if entry)
    packages = sorted({path.name for folder in folders if folder.is_dir() for path in folder.glob("*.dist-info")})
    image = "\n".join([tool.description.version, _image(), sys.version, *packages])
    version = hashlib.sha256(image.encode()).hexdigest()[:16]
    return dataclasses.replace(tool.description, version=version)


def _image() -> str:
    named = os.environ.get(IMAGE_VARIABLE, "")
    file = Path(named)
    return hashlib.sha256(file.read_bytes()).hexdigest() if named.startswith("/") and file.is_file() else named
