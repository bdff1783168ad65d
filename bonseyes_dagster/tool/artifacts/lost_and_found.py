"""The folder `lost+found` of the volume: it takes files that must not be removed but cannot stay in their place."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from pathlib import Path

from bonseyes_dagster.tool.artifacts.layout import Volume
from bonseyes_dagster.tool.files.disk import sync_all

__all__ = ["notices", "set_aside"]

_log = logging.getLogger(__name__)
# For so long `/healthz` reports that an index was rebuilt.
_NOTICE_S = 7 * 24 * 3600.0
_INDEX = "index"


def set_aside(volume: Volume, paths: Iterable[Path], label: str, why: str) -> Path:
    """Move `paths` durably into a new folder of `lost+found`, with the reason in its `why.txt`; return the folder."""
    place = _new_place(volume, label)
    (place / "why.txt").write_text(f"{why}\n")
    parents = set()
    for path in paths:
        path.rename(place / path.name)
        parents.add(path.parent)
    sync_all([place / "why.txt", place, place.parent, *parents])
    _log.warning("Moved %s to %s: %s", label, place, why)
    return place


def _new_place(volume: Volume, label: str) -> Path:
    stem = f"{label}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    for name in (stem, *(f"{stem}-{number}" for number in range(2, 10_000))):
        place = volume.lost_and_found / name
        try:
            place.mkdir(parents=True)
        except FileExistsError:
            continue
        return place
    raise FileExistsError(volume.lost_and_found / stem)


def notices(volume: Volume) -> list[str]:
    """Return a sentence for each index that was set aside in the last week."""
    sentences = []
    for place in sorted(volume.lost_and_found.glob(f"{_INDEX}-*")):
        try:
            if time.time() - place.stat().st_mtime < _NOTICE_S:
                sentences.append((place / "why.txt").read_text().strip())
        except OSError:  # somebody is removing it
            continue
    return sentences
