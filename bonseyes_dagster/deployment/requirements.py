"""What an image installs before any code is there: `python requirements.py PYPROJECT EXTRA` prints the requirements.

EXTRA `build` means what building the package needs. It runs while images are built, where nothing is installed yet,
so it imports nothing but Python.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

__all__ = ["requirements"]

BUILD = "build"
_ITSELF = re.compile(r"([\w.-]+)\[([\w,\s-]+)\]")


def requirements(document: Mapping[str, Any], extra: str) -> list[str]:
    """Return the requirements of the project in a pyproject.toml with one extra, sorted, without the project itself."""
    if extra == BUILD:
        return sorted(document["build-system"]["requires"])
    project = document["project"]
    return sorted({*project["dependencies"], *_of_extra(project, extra)})


def _of_extra(project: Mapping[str, Any], extra: str) -> Iterator[str]:
    extras = project["optional-dependencies"]
    if extra not in extras:
        raise SystemExit(f"There is no extra {extra!r}; there are: {', '.join(sorted(extras))}.")
    for requirement in extras[extra]:
        if (found := _ITSELF.fullmatch(requirement)) and found[1] == project["name"]:
            for further in found[2].split(","):
                yield from _of_extra(project, further.strip())
        else:
            yield requirement


if __name__ == "__main__":
    file, wanted = sys.argv[1:]
    print("\n".join(requirements(tomllib.loads(Path(file).read_text(encoding="utf-8")), wanted)))
