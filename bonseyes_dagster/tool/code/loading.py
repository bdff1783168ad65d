"""Import the tool's code and check it against tool.yml. The worker imports it once; forked children call it."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable
from typing import Any, cast

from bonseyes_dagster.description import ToolFolder
from bonseyes_dagster.errors import SettingsError
from bonseyes_dagster.model import python_name

__all__ = ["find_modules", "load_function"]


def find_modules(tool: ToolFolder) -> None:
    """Put the tool's folder, then its `code` folders, in front of `sys.path`."""
    for folder in reversed([tool.folder, *tool.code]):
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))


def load_function(tool: ToolFolder) -> Callable[..., Any]:
    """Import and return the entry point; exceptions of its module reach the caller."""
    module_name, _, name = str(tool.entry_point).partition(":")
    find_modules(tool)
    function: Any = getattr(importlib.import_module(module_name), name, None)
    if not callable(function):
        raise SettingsError(f"{tool.entry_point} is not a function; tool.yml names it as entry_point.")
    attributes = {python_name(parameter.name): None for parameter in tool.description.parameters}
    signature = inspect.signature(function)
    try:
        signature.bind("artifact", **attributes)
    except TypeError as error:
        raise SettingsError(f"{tool.entry_point} does not take the parameters of tool.yml: {error}.") from error
    _check_defaults(tool, signature)
    return cast("Callable[..., Any]", function)


def _check_defaults(tool: ToolFolder, signature: inspect.Signature) -> None:
    """Raise SettingsError if a default of the function differs from that of tool.yml, which is the one in use."""
    for parameter in tool.description.parameters:
        taken = signature.parameters.get(python_name(parameter.name))
        default = inspect.Parameter.empty if taken is None else taken.default
        if isinstance(default, tuple):
            default = list(default)  # tool.yml has lists, not tuples
        if default is not inspect.Parameter.empty and default != parameter.default:
            raise SettingsError(
                f"{tool.entry_point} has {default!r} as the default of {parameter.name!r}, and tool.yml has "
                f"{parameter.default!r}; leave it out of the function."
            )
