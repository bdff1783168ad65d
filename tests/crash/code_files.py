"""The code files of a tool: each has a few variants, and several ways to edit it."""

from __future__ import annotations

import os
import random
import re
from pathlib import Path

__all__ = ["CodeFiles", "Content"]

Content = tuple[tuple[str, str], ...]
"""The variant of each file, by its name."""
_VARIANT = re.compile(r"@[abc]@")
_OPTIONAL = "extra.txt"
_WAYS = ("in place", "by rename", "with its old time")


class CodeFiles:
    """The code files of one tool. All variants of a file have the same size."""

    def __init__(self, tool: Path, *others: Path) -> None:
        ours = [path for folder in (tool, *others) for path in folder.iterdir() if path.name != "tool.yml"]
        self._optional = tool / _OPTIONAL
        self._files = sorted({*(path for path in ours if path.is_file()), self._optional})
        self.seen: set[Content] = {self.content()}
        """All contents that were on the disk so far."""

    def content(self) -> Content:
        """Return the current content of the disk."""
        return tuple(sorted((path.name, self._variant(path)) for path in self._files))

    @staticmethod
    def _variant(path: Path) -> str:
        found = _VARIANT.search(path.read_text()) if path.exists() else None
        return found[0] if found else "none"

    def edit(self, random_: random.Random) -> str:
        """Change one file to another variant, or only touch it; return a description."""
        path = random_.choice(self._files)
        if path == self._optional:
            return self._edit_optional()
        if random_.random() < 0.1:
            path.touch()
            return f"touch {path.name}"
        variant = random_.choice([each for each in ("@a@", "@a@", "@b@", "@c@") if each != self._variant(path)])
        return self._write(path, variant, random_.choice(_WAYS))

    def restore(self, content: Content) -> None:
        """Change each file to its variant in `content`."""
        for path in self._files:
            variant = dict(content)[path.name]
            if variant == self._variant(path):
                continue
            if path == self._optional:
                self._edit_optional()
            else:
                self._write(path, variant, "with its old time")

    def _edit_optional(self) -> str:
        is_there = self._optional.exists()
        if is_there:
            self._optional.unlink()
        else:
            self._optional.write_text("@a@\n")
        self.seen.add(self.content())
        return f"{'remove' if is_there else 'add'} {_OPTIONAL}"

    def _write(self, path: Path, variant: str, way: str) -> str:
        text = _VARIANT.sub(variant, path.read_text())
        before = path.stat()
        if way == "by rename":
            # The draft lies beside the tool's folder, which must never hold other files.
            draft = self._optional.parents[1] / f"{path.name}.new"
            draft.write_text(text)
            draft.replace(path)
        else:
            path.write_text(text)
        if way == "with its old time":
            # `cp -p`, `rsync -t` and archives do so.
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        self.seen.add(self.content())
        return f"{path.name} to {variant} {way}"
