"""Read from a Dockerfile on which images it is based, which gives the order of builds, and as which user it runs."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from bonseyes_dagster.docker.compose.interpolation import interpolate
from bonseyes_dagster.errors import SettingsError

__all__ = ["bases_of", "user_of"]

_CONTINUED = re.compile(r"\\[ \t]*\n")
_ARG = re.compile(r"ARG\s+(.*)", re.IGNORECASE)
_FROM = re.compile(r"FROM\s+(?:--\S+\s+)*(\S+)(?:\s+AS\s+(\S+))?", re.IGNORECASE)
_USER = re.compile(r"USER\s+(\S+)", re.IGNORECASE)
_USED = re.compile(r"(?:COPY|ADD|RUN)\s.*?--(?:from|mount=\S*?from)=([^\s,]+)", re.IGNORECASE)


_T = TypeVar("_T")


@dataclass(slots=True)
class _Stage:
    """One stage. `sources` are images or names of stages: first its base, then those it copies from."""

    sources: list[str] = field(default_factory=list)
    user: str | None = None


def bases_of(file: Path, args: Mapping[str, str], target: str | None = None) -> frozenset[str]:
    """Return the references of the images that a Dockerfile's stage `target` (by default the last) is made from.

    `args` are the build arguments, which replace the defaults in the file.
    """
    return _ask(file, args, target, lambda stages, stage: frozenset(_images(stages, stage)))


def user_of(file: Path, args: Mapping[str, str], target: str | None = None) -> tuple[str | None, str]:
    """Return the user of the last USER line of `target`, None without one, and the base image of `target`."""
    return _ask(file, args, target, _user)


def _ask(
    file: Path, args: Mapping[str, str], target: str | None, question: Callable[[Mapping[str, _Stage], str], _T]
) -> _T:
    """Return `question(stages, name)` for a stage; raise SettingsError when the file has no such stage."""
    try:
        stages = _stages(file.read_text(encoding="utf-8"), args)
        return question(stages, target or list(stages)[-1])
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file} cannot be read: {error}.") from error
    except SettingsError as error:
        raise SettingsError(f"{file}: {error.message}") from error
    except (KeyError, IndexError):
        raise SettingsError(f"{file} has no stage {target!r}." if target else f"{file} has no FROM.") from None


def _stages(text: str, args: Mapping[str, str]) -> dict[str, _Stage]:
    """Return the stages by name; a stage without a name has its number."""
    lines = (line.strip() for line in _CONTINUED.sub(" ", text).splitlines())
    given: dict[str, str] = {}
    stages: dict[str, _Stage] = {}
    current = _Stage()
    for line in lines:
        if (found := _ARG.match(line)) and not stages:  # FROM can use only an ARG before the first stage
            for name, _, default in (word.partition("=") for word in shlex.split(found[1])):
                given[name] = args.get(name, interpolate(default, given))
        elif found := _FROM.match(line):
            current = stages[found[2] or str(len(stages))] = _Stage([interpolate(found[1], given)])
        elif found := _USED.match(line):
            current.sources.append(found[1])
        elif found := _USER.match(line):
            current.user = found[1]
    return stages


def _images(stages: Mapping[str, _Stage], target: str) -> Iterator[str]:
    for source in stages[target].sources:
        if source in stages and source != target:
            yield from _images(stages, source)
        elif source != "scratch":
            yield source


def _user(stages: Mapping[str, _Stage], target: str) -> tuple[str | None, str]:
    stage = stages[target]
    base = stage.sources[0]
    return (stage.user, base) if stage.user or base not in stages or base == target else _user(stages, base)
