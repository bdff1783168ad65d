"""Reuse: a new artifact made from a completed one by hard links, so neither time nor space is spent again."""

from __future__ import annotations

from bonseyes_dagster.tool.disk import link, link_tree, sync_folder
from bonseyes_dagster.tool.layout import Folder

__all__ = ["adopt"]


def adopt(source: Folder, target: Folder) -> None:
    """Give `target` the data, manifest, log and metrics of `source`, durably.

    Raises FileNotFoundError when `source` is being deleted meanwhile.
    """
    link_tree(source.data, target.data)
    link(source.manifest, target.manifest)
    for path, place in ((source.log, target.log), (source.progress, target.progress)):
        if path.exists():
            place.unlink(missing_ok=True)
            link(path, place)
    if source.metrics.is_dir():
        link_tree(source.metrics, target.metrics)
    sync_folder(target.path)
