"""Reads Dockerfiles: the base images, which give the order of builds, the user, the environment, the health check."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from bonseyes_dagster.docker.compose.interpolation import interpolate
from bonseyes_dagster.errors import SettingsError

__all__ = ["bases_of", "environment_of", "has_healthcheck", "user_of"]

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
    text = _read(file)
    try:
        stages = _stages(text, args)
        return question(stages, target or list(stages)[-1])
    except SettingsError as error:
        raise SettingsError(f"{file}: {error.message}") from error
    except (KeyError, IndexError):
        raise SettingsError(f"{file} has no stage {target!r}." if target else f"{file} has no FROM.") from None


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file} cannot be read: {error}.") from error


def environment_of(file: Path) -> dict[str, str]:
    """Return the variables that the ENV lines of all stages set, each with its last value; raise SettingsError."""
    found: dict[str, str] = {}
    for keyword, text in _instructions(_read(file)):
        if keyword == "ENV":
            words = _words(text)
            if "=" in words[0]:
                found |= {name: value for name, _, value in (word.partition("=") for word in words)}
            else:  # the old form, ENV NAME VALUE
                found[words[0]] = " ".join(words[1:])
    return found


def has_healthcheck(file: Path) -> bool:
    """Tell whether a Dockerfile sets a health check; raise SettingsError."""
    checks = [text for keyword, text in _instructions(_read(file)) if keyword == "HEALTHCHECK"]
    return bool(checks) and checks[-1].upper() != "NONE"


def _instructions(text: str) -> Iterator[tuple[str, str]]:
    """Yield the keyword and the rest of each instruction, with continued lines joined and comments left out."""
    joined = ""
    # The empty line ends an instruction that the file ends in the middle of.
    lines = [line for line in map(str.strip, text.splitlines()) if line and not line.startswith("#")]
    for line in [*lines, ""]:
        if line.endswith("\\"):
            joined += f"{line[:-1]} "
            continue
        words = f"{joined}{line}".split(maxsplit=1)
        joined = ""
        if len(words) == 2:
            yield words[0].upper(), words[1].strip()


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:  # a shell's command may hold a single quote
        return text.split()


def _stages(text: str, args: Mapping[str, str]) -> dict[str, _Stage]:
    """Return the stages by name; a stage without a name has its number."""
    given: dict[str, str] = {}
    stages: dict[str, _Stage] = {}
    current = _Stage()
    for keyword, rest in _instructions(text):
        if keyword == "ARG" and not stages:  # FROM can use only an ARG before the first stage
            for name, _, default in (word.partition("=") for word in _words(rest)):
                given[name] = args.get(name, interpolate(default, given))
        elif keyword == "FROM":
            words = [word for word in _words(rest) if not word.startswith("--")]
            if not words:
                raise SettingsError(f"The line FROM {rest} names no image.")
            name = words[2] if len(words) == 3 else str(len(stages))
            current = stages[name] = _Stage([interpolate(words[0], given)])
        elif keyword in ("COPY", "ADD", "RUN"):
            current.sources += _copied_from(_words(rest))
        elif keyword == "USER":
            current.user = _words(rest)[0]
    return stages


def _copied_from(words: list[str]) -> Iterator[str]:
    """Yield the images and stages that the options of an instruction name."""
    for word in itertools.takewhile(lambda word: word.startswith("--"), words):
        option, _, value = word.partition("=")
        if option == "--from":
            yield value
        elif option == "--mount":
            yield from (part.removeprefix("from=") for part in value.split(",") if part.startswith("from="))


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
