"""Test helper for the author of a tool: run its function in this process, on local files, and check its output."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bonseyes_dagster.description import ToolFolder, check_parameters, load_tool
from bonseyes_dagster.errors import InvalidError, SettingsError
from bonseyes_dagster.model import python_name
from bonseyes_dagster.tool.artifact import Artifact
from bonseyes_dagster.tool.artifacts.metrics import MetricsWriter
from bonseyes_dagster.tool.artifacts.progress import ProgressWriter
from bonseyes_dagster.tool.code.loading import load_function
from bonseyes_dagster.tool.fetching.inputs import LocalInput

__all__ = ["make_artifact"]


def make_artifact(tool_folder: str | Path, out: Path, *, name: str = "test", **parameters: Any) -> Path:
    """Run the tool in `tool_folder` and return the folder with its output, `out/data`.

    Pass parameters by their Python names: files as paths, artifacts as folders. The function checks them as the
    container does (InvalidError). Metrics are in `out/metrics`, progress in `out/progress.json`. Exceptions of the tool
    reach the caller.
    """
    tool = load_tool(Path(tool_folder))
    if tool.entry_point is None:
        raise SettingsError(f"{tool_folder} is a command; only functions can be run in a test's process.")
    values = _values(tool, parameters)
    output = out / "data"
    output.mkdir(parents=True)
    progress, metrics = ProgressWriter(out / "progress.json"), MetricsWriter(out / "metrics")
    plain = {key: value for key, value in values.items() if not isinstance(value, Path | LocalInput)}
    artifact = Artifact(name, plain, output=output, metrics=metrics, progress=progress)
    try:
        with _own_modules(tool):
            load_function(tool)(artifact, **{python_name(key): value for key, value in values.items()})
    finally:
        progress.flush()
        metrics.close()
    return output


def _values(tool: ToolFolder, given: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters by their names in tool.yml, with defaults, and with local paths in place of URLs."""
    names = {python_name(parameter.name): parameter for parameter in tool.description.parameters}
    unknown = sorted(set(given) - set(names))
    if unknown:
        raise InvalidError(f"{tool.description.name} has no parameter {', '.join(unknown)}.")
    local: dict[str, Any] = {}
    stand_ins: dict[str, Any] = {}
    plain: dict[str, Any] = {}
    for attribute, value in given.items():
        parameter = names[attribute]
        if parameter.type in ("file", "url", "artifact") and value is not None:
            path = Path(value)
            if not path.exists():
                raise InvalidError(f"{parameter.name!r}: there is no {path}.")
            local[parameter.name] = LocalInput(path) if parameter.type == "artifact" else path
            stand_ins[parameter.name] = "local/test" if parameter.type == "artifact" else "http://local/test"
        else:
            plain[parameter.name] = value
    checked = check_parameters(tool.description.parameters, {**plain, **stand_ins})
    return {**checked, **local}


@contextmanager
def _own_modules(tool: ToolFolder) -> Iterator[None]:
    """Import the tool's modules anew, and remove them afterwards: other tools may have modules with the same names."""
    path, before = list(sys.path), set(sys.modules)
    folders = tuple(str(folder) for folder in (tool.folder, *tool.code))
    try:
        yield
    finally:
        sys.path[:] = path
        for name in set(sys.modules) - before:
            file = getattr(sys.modules[name], "__file__", None) or ""
            if file.startswith(folders):
                del sys.modules[name]
