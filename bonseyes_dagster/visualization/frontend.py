"""TensorBoard's web files with one change: charts reload automatically, because they show running artifacts."""

from __future__ import annotations

import io
import logging
import zipfile
from collections.abc import Callable
from functools import cache
from typing import IO

from tensorboard import assets

__all__ = ["REPLACEMENTS", "provide"]

log = logging.getLogger(__name__)

RELOAD_S = 10

# The server of TensorBoard cannot set these defaults. Users can still change them in the browser.
REPLACEMENTS: dict[str, list[tuple[bytes, bytes]]] = {
    "index.js": [
        (
            b"settings:{reloadPeriodInMs:3e4,reloadEnabled:!1",
            b"settings:{reloadPeriodInMs:%de3,reloadEnabled:!0" % RELOAD_S,
        ),
        (b"MIN_RELOAD_PERIOD_IN_S=30", b"MIN_RELOAD_PERIOD_IN_S=5"),
        (b"e>=3e4?e:t.settings.reloadPeriodInMs", b"e>=5e3?e:t.settings.reloadPeriodInMs"),
        (b"e.autoReloadPeriodInMs>3e4", b"e.autoReloadPeriodInMs>=5e3"),
    ],
    # Browsers cache the script for a year under this hash, so the changed script needs another hash.
    "index.html": [(b"index.js?_file_hash=", b"index.js?_file_hash=live%d-" % RELOAD_S)],
}


def provide() -> Callable[[], IO[bytes]]:
    """Return an "assets zip provider" for TensorBoard: a function that returns an open zip file."""
    return lambda: io.BytesIO(_zip())


@cache
def _zip() -> bytes:
    original = assets.get_default_assets_zip_provider()
    if original is None:
        raise RuntimeError("This installation of TensorBoard has no web files.")
    target = io.BytesIO()
    # Stored, not deflated: TensorBoard reads each file once, at start.
    with original() as file, zipfile.ZipFile(file) as source, zipfile.ZipFile(target, "w") as result:
        for path in source.namelist():
            result.writestr(path, _changed(path, source.read(path)))
    return target.getvalue()


def _changed(path: str, content: bytes) -> bytes:
    for old, new in REPLACEMENTS.get(path, ()):
        if content.count(old) != 1:
            log.warning("TensorBoard's %s has changed: its charts may not reload automatically.", path)
        else:
            content = content.replace(old, new)
    return content
