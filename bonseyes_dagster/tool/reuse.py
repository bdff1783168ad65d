"""Reuse: a new artifact made from a completed one by hard links, so neither time nor space is spent again."""

from __future__ import annotations

from bonseyes_dagster.tool.disk import link, link_tree, remove, sync_folder
from bonseyes_dagster.tool.layout import Folder

__all__ = ["adopt"]


def adopt(source: Folder, target: Folder) -> None:
    """Give `target` the data, manifest, log and metrics of `source`, durably.

    Raises FileNotFoundError when `source` is being deleted meanwhile; `target` has no log and no metrics then.
    """
    try:
        _link_all(source, target)
        if not source.manifest.exists():
            # What was not found may have been deleted.
            raise FileNotFoundError(source.manifest)
    except FileNotFoundError:
        # Links to the files of other artifacts, to which whoever makes `target` after all would append.
        target.log.unlink(missing_ok=True)
        target.progress.unlink(missing_ok=True)
        remove(target.metrics)
        raise
    sync_folder(target.path)


def _link_all(source: Folder, target: Folder) -> None:
    link_tree(source.data, target.data)
    link(source.manifest, target.manifest)
    for path, place in ((source.log, target.log), (source.progress, target.progress)):
        if path.exists():
            place.unlink(missing_ok=True)
            link(path, place)
    if source.metrics.is_dir():
        link_tree(source.metrics, target.metrics)
