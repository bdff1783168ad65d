"""Follow a trace of system calls, and find files and names that a power cut would lose."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath

__all__ = ["TRACED_CALLS", "Call", "Unsynced", "calls_of"]

TRACED_CALLS = (
    "openat,write,pwrite64,writev,copy_file_range,sendfile,ftruncate,fsync,fdatasync,syncfs,?rename,?renameat,renameat2,"
    "?link,linkat,?mkdir,mkdirat"
)
_LINE = re.compile(r"(\d+) +(\w+)\((.*)\) += (-?\d+)(?:<(.*?)>)?")
_BEGUN = re.compile(r"(\d+) +(\w+\(.*?) *<unfinished \.\.\.>")
_RESUMED = re.compile(r"(\d+) +<\.\.\. (\w+) resumed>(.*)")
_PATH = re.compile(r'"((?:[^"\\]|\\.)*)"')
_DESCRIPTOR = re.compile(r"^\d+<([^>]*)>")


BEGUN = "begun"
"""The name of the call that marks the begin of an interrupted call; other calls came before its end."""


@dataclass(frozen=True, slots=True)
class Call:
    """One successful system call."""

    pid: int
    name: str
    arguments: str
    result: str = ""

    @property
    def file(self) -> str:
        """Return the path of the first descriptor."""
        found = _DESCRIPTOR.match(self.arguments)
        return found[1].removesuffix(" (deleted)") if found else ""

    @property
    def paths(self) -> list[str]:
        """Return the paths in the arguments."""
        return _PATH.findall(self.arguments)


def calls_of(lines: Iterable[str]) -> Iterator[Call]:
    """Yield calls in the order of their ends; calls that the trace has interrupted are joined."""
    begun: dict[str, str] = {}
    for line in lines:
        if found := _BEGUN.match(line):
            begun[found[1]] = found[2]
            yield Call(int(found[1]), BEGUN, "")
            continue
        if (found := _RESUMED.match(line)) and found[1] in begun:
            line = f"{found[1]} {begun.pop(found[1])}{found[3]}"
        if (found := _LINE.match(line)) and not found[4].startswith("-"):
            yield Call(int(found[1]), found[2], found[3], found[5] or "")


@dataclass(slots=True)
class Unsynced:
    """The data that a power cut would lose: contents of files, with their writers, and names in folders."""

    contents: dict[str, set[int]] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)
    _late: dict[int, set[str]] = field(default_factory=dict)
    """By process in the middle of a call: files and names that became unsynced meanwhile."""

    def add(self, call: Call) -> None:
        """Change the state by one call."""
        if call.name == BEGUN:
            self._late[call.pid] = set()
            return
        late = self._late.pop(call.pid, set())
        if call.name in ("write", "pwrite64", "writev", "copy_file_range", "sendfile", "ftruncate"):
            if call.file.startswith("/"):
                self.contents.setdefault(call.file, set()).add(call.pid)
                self._note(call.file)
        elif call.name in ("fsync", "fdatasync"):
            self._sync(call.file, late)
        elif call.name == "syncfs":
            self.contents = {path: pids for path, pids in self.contents.items() if path in late}
            self.names &= late
        elif call.name.startswith("rename"):
            self._rename(*call.paths[:2])
        else:
            self._name(call)

    def _note(self, path: str) -> None:
        for late in self._late.values():
            late.add(path)

    def _name(self, call: Call) -> None:
        made = ""
        if call.name.startswith("link"):
            made = call.paths[1]
        elif call.name.startswith("mkdir"):
            made = call.paths[0]
        elif call.name == "openat" and "O_CREAT" in call.arguments:
            made = call.result
        if made:
            self.names.add(made)
            self._note(made)

    def _sync(self, path: str, late: set[str]) -> None:
        if path not in late:
            self.contents.pop(path, None)
        self.names = {name for name in self.names if str(PurePosixPath(name).parent) != path or name in late}

    def _rename(self, source: str, target: str) -> None:
        self.contents = {_moved(path, source, target): pids for path, pids in self.contents.items()}
        self.names = {_moved(path, source, target) for path in self.names if path != source} | {target}
        self._note(target)

    def within(self, *roots: str) -> set[str]:
        """Return the unsynced files and folders among `roots` and below them."""
        return {
            path
            for path in self.contents.keys() | self.names
            if any(path == root or path.startswith(f"{root}/") for root in roots)
        }


def _moved(path: str, source: str, target: str) -> str:
    return target + path[len(source) :] if path == source or path.startswith(f"{source}/") else path
