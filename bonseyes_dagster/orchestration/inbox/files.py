"""Finds the sets of archives in an inbox: the file for each parameter, and the reason why a set is incomplete.

`sensor.py` calls it at each look. A set that cannot be read does not hide the other sets.
"""

import hashlib
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ArchiveFile", "ArchiveSet", "is_within", "printable", "read_sets", "stamp_of"]

# Suffixes that a browser, rsync, wget or an editor gives to an unfinished file.
_UNFINISHED = (
    *(".part", ".partial", ".crdownload", ".download", ".opdownload", ".filepart", ".unfinished", ".aria2", ".!ut"),
    *(".tmp", ".temp", ".swp"),
)
# Suffixes of files that belong to a complete file: its checksum, its signature, an editor's copy.
_COMPANIONS = (
    *(".md5", ".sha1", ".sha224", ".sha256", ".sha384", ".sha512", ".b2", ".crc32", ".sfv"),
    *(".md5sum", ".sha1sum", ".sha256sum", ".sha512sum", ".asc", ".sig", ".minisig", "~"),
)
# A file with such a suffix counts as a parameter's file only if no other file has the parameter's name.
_NOTES = (".txt", ".md", ".rst", ".log", ".nfo", ".html", ".pdf", ".bak", ".old", ".orig")
# Folders that the system, a file server or an archiver creates.
_SYSTEM_FOLDERS = frozenset({"lost+found", "$RECYCLE.BIN", "System Volume Information", "@eaDir", "__MACOSX"})
# MNIST calls its files `train-images-idx3-ubyte.gz` and `t10k-labels-idx1-ubyte.gz`.
_MNIST = re.compile(r"[-.]idx\d+-ubyte(?=\.|$)")
_MNIST_TEST = "t10k-"


@dataclass(frozen=True, slots=True)
class ArchiveFile:
    """A regular file below `inside`, a path without links; `stamp` changes when its bytes may have changed."""

    path: str
    inside: str
    size: int
    stamp: tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class ArchiveSet:
    """A folder of the inbox ("" for the inbox itself), the file of each parameter, and why no run can start."""

    name: str
    files: Mapping[str, ArchiveFile]
    problem: str | None = None

    @property
    def title(self) -> str:
        """Return the name that messages show."""
        return printable(self.name) or "the inbox itself"

    @property
    def size(self) -> int:
        """Return the size of all files together, in bytes."""
        return sum(file.size for file in self.files.values())

    @property
    def stamp(self) -> str:
        """Return a text that changes when any of the files may have changed."""
        stamps = repr(sorted((name, file.path, file.stamp) for name, file in self.files.items()))
        return hashlib.sha256(stamps.encode(errors="surrogateescape")).hexdigest()[:20]


def read_sets(root: Path, wanted: Iterable[str]) -> list[ArchiveSet]:
    """Return the sets of `root` by name; raise OSError only when `root` itself cannot be read."""
    wanted = list(wanted)
    inside = os.path.realpath(root)
    with os.scandir(root) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    folders = [entry for entry in found if not _is_ignored(entry.name) and _is_folder(entry)]
    own = _choose("", str(root), inside, found, wanted)
    # A user of subfolders puts no archives into the inbox itself. Do not report that it lacks files.
    is_used = bool(own.files) or not folders
    return [*([own] if is_used or "lacks" not in (own.problem or "") else []), *_subfolders(folders, inside, wanted)]


def printable(name: str) -> str:
    """Return a file's name as text that can be stored and shown; bytes that are not UTF-8 become escapes."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _subfolders(folders: Iterable["os.DirEntry[str]"], inside: str, wanted: list[str]) -> Iterator[ArchiveSet]:
    for folder in folders:
        if printable(folder.name) != folder.name:
            yield ArchiveSet(folder.name, {}, "has a name that is not UTF-8; rename it")
        else:
            yield _subfolder(folder, inside, wanted)


def _subfolder(folder: "os.DirEntry[str]", inside: str, wanted: list[str]) -> ArchiveSet:
    try:
        descriptor = os.open(folder.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        return ArchiveSet(folder.name, {}, f"cannot be read: {error.strerror}")
    try:
        # Check the open folder: a link may take its place at any time.
        if not is_within(descriptor, inside):
            return ArchiveSet(
                folder.name, {}, "is a link out of the inbox, which is not followed; move the folder here"
            )
        with os.scandir(descriptor) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
        return _choose(folder.name, folder.path, inside, found, wanted)
    except OSError as error:
        return ArchiveSet(folder.name, {}, f"cannot be read: {error.strerror}")
    finally:
        os.close(descriptor)


def _choose(name: str, folder: str, inside: str, entries: list["os.DirEntry[str]"], wanted: list[str]) -> ArchiveSet:
    """Return the set with the file of each parameter, and the reasons why a file is missing or cannot be used."""
    files: dict[str, ArchiveFile] = {}
    problems: list[str] = []
    missing = []
    named = {entry.name: entry for entry in entries if not entry.name.startswith(".") and not _is_folder(entry)}
    for parameter in wanted:
        suffixes = {each: rest for each in named if (rest := _rest(each, parameter)) is not None}
        unfinished = [each for each in suffixes if each.lower().endswith(_UNFINISHED)]
        candidates = _candidates(suffixes)
        if len(candidates) > 1:
            listed = ", ".join(map(printable, candidates))
            problems.append(f"has more than one file for {parameter} ({listed}); leave one of them")
        elif not candidates:
            missing.append(parameter + (f" ({printable(unfinished[0])} is not finished)" if unfinished else ""))
        elif partner := next((each for each in unfinished if each.startswith(candidates[0])), None):
            problems.append(f"is still being written: {printable(partner)} is there")
        else:
            found = _read_file(named[candidates[0]], folder, inside)
            if isinstance(found, str):
                problems.append(found)
            else:
                files[parameter] = found
    if missing:
        problems.append(f"lacks {', '.join(missing)}")
    return ArchiveSet(name, files, "; ".join(problems) or None)


def _rest(file: str, parameter: str) -> str | None:
    """Return the part of a file's name after the parameter's name; None if the name begins differently."""
    plain = _MNIST.sub("", file, count=1)
    names = [file, plain]
    if plain != file and plain.startswith(_MNIST_TEST):
        names.append(f"test-{plain.removeprefix(_MNIST_TEST)}")
    for name in names:
        rest = name.removeprefix(parameter)
        if name.startswith(parameter) and rest[:1] in ("", ".", "~"):
            return rest
    return None


def _candidates(suffixes: Mapping[str, str]) -> list[str]:
    whole = [each for each, rest in suffixes.items() if not rest.lower().endswith((*_UNFINISHED, *_COMPANIONS))]
    return [each for each in whole if not suffixes[each].lower().endswith(_NOTES)] or whole


def _read_file(entry: "os.DirEntry[str]", folder: str, inside: str) -> ArchiveFile | str:
    """Return the file, or the end of a sentence that says why it cannot be used."""
    name = printable(entry.name)
    if name != entry.name:
        return f"holds {name}, whose name is not UTF-8; rename it"
    try:
        path = f"{folder}/{entry.name}"
        if entry.is_symlink() and not _is_below(os.path.realpath(path), inside):
            return f"holds {name}, a link out of the inbox, which is not followed; copy the file"
        found = entry.stat()
    except OSError as error:
        return f"holds {name}, which cannot be read: {error.strerror}"
    if not stat.S_ISREG(found.st_mode):
        return f"holds {name}, which is not a regular file"
    if not found.st_size:
        return f"is still being written: {name} is empty"
    return ArchiveFile(path, inside, found.st_size, stamp_of(found))


def stamp_of(found: os.stat_result) -> tuple[int, int, int, int]:
    """Return values of which one changes when a file's bytes may have changed."""
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _is_ignored(folder: str) -> bool:
    return folder.startswith(".") or folder in _SYSTEM_FOLDERS


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def is_within(descriptor: int, inside: str) -> bool:
    """Tell whether an open file or folder is below `inside`, a path without links."""
    return _is_below(str(Path(f"/proc/self/fd/{descriptor}").readlink()), inside)


def _is_below(real: str, inside: str) -> bool:
    return real.startswith(inside.rstrip(os.sep) + os.sep)
