"""Loads a project's `definitions.py` and finds the pipelines in it."""

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from bonseyes_dagster.code_errors import describe_code_error
from bonseyes_dagster.errors import SettingsError
from bonseyes_dagster.execution.importing import importing_from
from bonseyes_dagster.orchestration.pipeline import Pipeline

__all__ = ["DEFINITIONS", "load_pipeline", "load_pipelines", "reload_pipeline"]

DEFINITIONS = "definitions.py"
_PACKAGE = __name__.partition(".")[0]


def load_pipelines(project: Path) -> dict[str, Pipeline]:
    """Return the pipelines at the top level of a project's `definitions.py`, by name."""
    module = _load(project.absolute() / DEFINITIONS)
    found: dict[str, Pipeline] = {}
    for pipeline in _pipelines_in(module):
        if found.setdefault(pipeline.name, pipeline) is not pipeline:
            raise SettingsError(f"{module.__file__} holds two pipelines called {pipeline.name!r}.")
    return found


def load_pipeline(project: Path, name: str) -> Pipeline:
    """Return one pipeline of a project; raise SettingsError with the names of all pipelines if it is not there."""
    pipelines = load_pipelines(project)
    if name not in pipelines:
        there = ", ".join(sorted(pipelines)) or "none"
        raise SettingsError(f"{project / DEFINITIONS} has no pipeline {name!r}; it has: {there}.")
    return pipelines[name]


def reload_pipeline(project: Path, name: str) -> Pipeline:
    """Load `definitions.py` again, with the project's modules that it imports, and return one pipeline."""
    folder = project.resolve()
    for module, loaded in list(sys.modules.items()):
        file = getattr(loaded, "__file__", None)
        # This package and installed packages may be in the project's folder. Keep them: their classes are in use.
        is_kept = module.partition(".")[0] in (_PACKAGE, "__main__") or "site-packages" in str(file)
        if file is not None and not is_kept and folder in Path(file).resolve().parents:
            del sys.modules[module]
    importlib.invalidate_caches()
    return load_pipeline(project, name)


def _pipelines_in(module: ModuleType) -> Iterator[Pipeline]:
    for value in vars(module).values():
        if isinstance(value, Pipeline):
            yield value
        elif type(value) in (list, tuple):  # not a subclass: `Definitions` is one, and cannot be iterated
            yield from (each for each in value if isinstance(each, Pipeline))


def _load(file: Path) -> ModuleType:
    if not file.is_file():
        raise SettingsError(f"There is no {file}: run in the project's folder, or set BONSEYES_PROJECT.")
    spec = importlib.util.spec_from_file_location("definitions", file)
    assert spec is not None and spec.loader is not None  # it is a .py file
    module = importlib.util.module_from_spec(spec)
    try:
        with importing_from(file.parent):
            spec.loader.exec_module(module)
    except SettingsError:
        raise
    except (Exception, SystemExit) as error:
        reason = describe_code_error(error, [file.parent])
        raise SettingsError(f"{file} cannot be loaded: {reason}") from error
    return module
