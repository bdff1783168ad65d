"""The configuration of one tool container: the environment and tool.yml, read once and checked early."""

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
from bonseyes_dagster.tool.artifacts.layout import Volume
from bonseyes_dagster.tool.code.packages import Packages
from bonseyes_dagster.tool.code.watch import CodeWatch

__all__ = ["load", "watch_code"]

# This variable tells images apart. It is a text, such as a digest, or the path of a file, such as a list of packages.
IMAGE_VARIABLE = "BONSEYES_IMAGE"


@cache
def load() -> tuple[ToolFolder, ToolDescription, Volume, Settings]:
    """Read the environment and tool.yml; raise SettingsError that names every wrong setting."""
    settings = Settings.from_environ()
    if settings.tool is None:
        raise SettingsError("BONSEYES_TOOL must name the folder with the tool's tool.yml.")
    if settings.volume is None:
        raise SettingsError("BONSEYES_VOLUME must name the folder that keeps the artifacts.")
    tool = load_tool(settings.tool)
    return tool, _described(tool), Volume(settings.volume), settings


def watch_code() -> CodeWatch:
    """Return a watch over the code of the version that `load` returns; processes forked later have the same version."""
    tool, _, _, _ = load()
    return CodeWatch(tool.sources, _packages())


# Called before the tool's modules are imported, because its folders in `sys.path` hold no packages.
@cache
def _packages() -> Packages:
    return Packages.read()


def _described(tool: ToolFolder) -> ToolDescription:
    """Return the description with a version that also changes with the image, its Python and its packages."""
    image = "\n".join([tool.description.version, _image(), sys.version, *_packages().names])
    version = hashlib.sha256(image.encode()).hexdigest()[:16]
    return dataclasses.replace(tool.description, version=version)


def _image() -> str:
    named = os.environ.get(IMAGE_VARIABLE, "")
    file = Path(named)
    return hashlib.sha256(file.read_bytes()).hexdigest() if named.startswith("/") and file.is_file() else named
