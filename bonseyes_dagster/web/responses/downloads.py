"""Answer with one file, with ranges and validators, or with many files as a zip archive."""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections.abc import Iterator
from typing import BinaryIO
from urllib.parse import quote

from flask import Response, request
from werkzeug.datastructures import ETags
from werkzeug.http import parse_etags

from bonseyes_dagster.errors import NotReadyError, PreconditionFailedError, RangeError
from bonseyes_dagster.web.backend import DataFile
from bonseyes_dagster.web.responses.archive import Archive
from bonseyes_dagster.web.responses.sending import send_pieces, send_range

__all__ = ["send_file", "send_zip"]

_RANGE = re.compile(r"[Bb][Yy][Tt][Ee][Ss]=[ \t]*([0-9]{0,18})-([0-9]{0,18})[ \t]*")
_CHUNK_BYTES = 1 << 20
_ZIP_FORMAT = b"zip 2\n"  # change it when the same files give another archive
_SECURITY = {
    # Uploads of users and files of tools must never run in a browser as part of this site.
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Cross-Origin-Resource-Policy": "same-origin",
    # A name can belong to another artifact later, so a browser must revalidate its stored answer.
    "Cache-Control": "no-cache",
}


def send_file(file: DataFile) -> Response:
    """Answer with a file, with a range of it, or with 304 if the client has it already."""
    entry = file.entry
    headers = _headers(entry.sha256, entry.path.rpartition("/")[2])
    digest = base64.b64encode(bytes.fromhex(entry.sha256)).decode()
    headers |= {"Repr-Digest": f"sha-256=:{digest}:", "Accept-Ranges": "bytes"}
    if _is_current(entry.sha256):
        return _not_modified(headers)
    span = _requested_range(entry.size, entry.sha256)
    if span is None:
        return _whole(file, headers)
    begin, end = span
    headers["Content-Range"] = f"bytes {begin}-{end - 1}/{entry.size}"
    content = _ranged(_open(file), begin, end - begin)
    return _binary(content, 206, headers, end - begin, "application/octet-stream")


def _open(file: DataFile) -> BinaryIO:
    """Open the file and compare its size with the entry now, while an error answer is still possible."""
    opened = file.open()
    try:
        size = os.fstat(opened.fileno()).st_size
        if size != file.entry.size:
            raise NotReadyError(
                f"The file {file.entry.path!r} is damaged: it has {size} bytes, but should have {file.entry.size}."
            )
    except BaseException:
        opened.close()
        raise
    return opened


def _whole(file: DataFile, headers: dict[str, str]) -> Response:
    size = file.entry.size
    if request.method == "HEAD":
        return _binary(iter(()), 200, headers, size, "application/octet-stream")
    opened = _open(file)
    wrap = request.environ.get("wsgi.file_wrapper")
    if wrap is None:
        return _binary(_ranged(opened, 0, size), 200, headers, size, "application/octet-stream")
    # uWSGI recognises its wrapper by identity; one thread then sends all such answers with sendfile.
    return _binary(wrap(opened, _CHUNK_BYTES), 200, headers, size, "application/octet-stream")


def _binary(content: Iterator[bytes], status: int, headers: dict[str, str], size: int, mimetype: str) -> Response:
    response = Response(content, status, headers, mimetype=mimetype, direct_passthrough=True)
    response.content_length = size
    return response


class _Closing:
    """An iterator with a file; `close` closes the file, even if the answer never began."""

    def __init__(self, file: BinaryIO, content: Iterator[bytes]) -> None:
        self._file = file
        self._content = content

    def __iter__(self) -> Iterator[bytes]:
        return self._content

    def __next__(self) -> bytes:
        return next(self._content)

    def close(self) -> None:
        self._file.close()


def _ranged(opened: BinaryIO, begin: int, size: int) -> Iterator[bytes]:
    return _Closing(opened, send_range(opened.fileno(), begin, size))


def _headers(tag: str, filename: str) -> dict[str, str]:
    ascii_name = "".join(c if c.isascii() and c.isprintable() and c not in '"\\%' else "_" for c in filename)
    disposition = f'attachment; filename="{ascii_name}"'
    if ascii_name != filename:
        disposition += f"; filename*=UTF-8''{quote(filename, safe='')}"
    return {"ETag": f'"{tag}"', "Content-Disposition": disposition, **_SECURITY}


def _not_modified(headers: dict[str, str]) -> Response:
    response = Response(status=304, headers=headers)
    del response.headers["Content-Type"]
    return response


def _is_current(tag: str) -> bool:
    """Return True if the client has the file (If-None-Match); raise PreconditionFailedError if If-Match fails."""
    wanted = request.headers.get("If-Match")
    if wanted is not None and not _strongly(parse_etags(wanted), tag):
        raise PreconditionFailedError(f'The file has changed; its ETag is now "{tag}".')
    return parse_etags(request.headers.get("If-None-Match")).contains_weak(tag)


def _strongly(tags: ETags, tag: str) -> bool:
    return tags.star_tag or tags.is_strong(tag)


def _requested_range(size: int, tag: str) -> tuple[int, int] | None:
    """Return (begin, end) of the requested range; None for the whole file.

    Several ranges, other units and malformed ranges also give the whole file, as RFC 9110 allows.
    """
    text = request.headers.get("Range")
    if text is None or request.method != "GET":
        return None
    if_range = request.headers.get("If-Range")
    # RFC 9110 13.1.5 demands a strong comparison, so a weak tag or a date never matches.
    if if_range is not None and if_range.strip(" \t") != f'"{tag}"':
        return None
    match = _RANGE.fullmatch(text)
    if match is None or not (match[1] or match[2]) or (match[1] and match[2] and int(match[1]) > int(match[2])):
        return None
    if match[1]:
        begin, end = int(match[1]), min(int(match[2]) + 1, size) if match[2] else size
    else:
        begin, end = max(0, size - int(match[2])), size
        if size == 0 and int(match[2]):
            return None  # RFC 9110 calls it satisfiable, but Content-Range cannot express it
    if begin >= end:
        raise RangeError(f"The range {text[:80]!r} is outside the file, which has {size} bytes.", detail={"size": size})
    return begin, end


def send_zip(files: list[DataFile], name: str, prefix: str = "") -> Response:
    """Answer with `files` as `NAME.zip`, their paths relative to the folder `prefix`.

    The archive is not compressed: the files of tools seldom shrink, and this way its length is known before the first
    byte. It depends only on the files, so it has a strong ETag.
    """
    tag = hashlib.sha256(_ZIP_FORMAT)
    archive = Archive()
    for file in files:
        entry = file.entry
        path = entry.path[len(prefix) :].lstrip("/")
        tag.update(f"{path}\0{entry.sha256}\0{entry.size}\n".encode())
        archive.add(path, entry.size, file.open)
    headers = _headers(tag.hexdigest(), f"{name}.zip") | {"Accept-Ranges": "none"}
    if _is_current(tag.hexdigest()):
        return _not_modified(headers)
    content: Iterator[bytes] = iter(()) if request.method == "HEAD" else send_pieces(iter(archive))
    return _binary(content, 200, headers, archive.size_bytes, "application/zip")
