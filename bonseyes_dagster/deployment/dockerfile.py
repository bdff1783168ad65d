"""What an image stands on, read from its Dockerfile: images are built in the order that this tells."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

from bonseyes_dagster.deployment.interpolation import interpolate
from bonseyes_dagster.errors import SettingsError

__all__ = ["bases_of"]

_CONTINUED = re.compile(r"\\[ \t]*\n")
_ARG = re.compile(r"ARG\s+(.*)", re.IGNORECASE)
_FROM = re.compile(r"FROM\s+(?:--\S+\s+)*(\S+)(?:\s+AS\s+(\S+))?", re.IGNORECASE)
_USED = re.compile(r"(?:COPY|ADD|RUN)\s.*?--(?:from|mount=\S*?from)=([^\s,]+)", re.IGNORECASE)


def bases_of(file: Path, args: Mapping[str, str], target: str | None = None) -> frozenset[str]:
    """Return the references of the images that `target` (the last stage by default) of a Dockerfile is made from.

    `args` are the build arguments, which take the place of the defaults in the file.
    """
    try:
        stages = _stages(file.read_text(encoding="utf-8"), args)
        return frozenset(_images(stages, target or list(stages)[-1]))
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file} cannot be read: {error}") from error
    except SettingsError as error:
        raise SettingsError(f"{file}: {error.message}") from error
    except (KeyError, IndexError):
        raise SettingsError(f"{file} has no stage {target!r}." if target else f"{file} has no FROM.") from None


def _stages(text: str, args: Mapping[str, str]) -> dict[str, list[str]]:
    """Return what each stage is made from, by the stage's name (or number); other stages among them by name."""
    lines = (line.strip() for line in _CONTINUED.sub(" ", text).splitlines())
    given: dict[str, str] = {}
    stages: dict[str, list[str]] = {}
    current: list[str] = []
    for line in lines:
        if (found := _ARG.match(line)) and not stages:  # only those before the first stage count in FROM
            for name, _, default in (word.partition("=") for word in shlex.split(found[1])):
                given[name] = args.get(name, interpolate(default, given))
        elif found := _FROM.match(line):
            current = [interpolate(found[1], given)]
            stages[found[2] or str(len(stages))] = current
        elif found := _USED.match(line):
            current.append(found[1])
    return stages


def _images(stages: Mapping[str, list[str]], target: str) -> Iterator[str]:
    for source in stages[target]:
        if source in stages and source != target:
            yield from _images(stages, source)
        elif source != "scratch":
            yield source
