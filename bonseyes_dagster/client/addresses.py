"""The addresses of containers: the base URL of a name, and the container and name in an artifact's URL."""

from __future__ import annotations

import ipaddress
import json
import socket
import threading
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

from bonseyes_dagster import urls
from bonseyes_dagster.errors import InvalidError, SettingsError
from bonseyes_dagster.settings import Settings

__all__ = ["Addresses"]

_Stamp = tuple[int, int, int]


class Addresses:
    """Base URLs by container name, from a JSON file. It reads the file again when it changes.

    Without a file, the base URL of a container is `http://NAME`.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._stamp: _Stamp | None = None
        self._known: Mapping[str, str] = {}

    @classmethod
    def from_settings(cls, settings: Settings | None = None) -> Addresses:
        """Return the addresses in the file of the setting `BONSEYES_ADDRESSES`."""
        return cls((settings or Settings.from_environ()).addresses)

    def base_url(self, container: str) -> str:
        """Return the base URL of `container`, without a trailing slash; raise InvalidError when it is not a name."""
        if not urls.is_name(container):
            raise InvalidError(f"{container!r} is not a container's name.")
        return self._read().get(container) or f"http://{container}"

    def is_listed(self, container: str) -> bool:
        """Tell whether the project can have a container of this name.

        With a file, the file must list the name. Without a file, the name must have no dots.
        """
        return urls.is_name(container) and (container in self._read() if self._file else "." not in container)

    def is_known(self, container: str) -> bool:
        """Tell whether the project has a container of this name.

        With a file, the file must list the name. Without a file, DNS must have private addresses only for the name:
        the DNS of a Docker engine knows the project's services, and no other private names.
        """
        return self.is_listed(container) and (self._file is not None or _is_private(container))

    def containers(self) -> list[str]:
        """Return the sorted names in the file; an empty list without a file."""
        return sorted(self._read())

    def parse_artifact(self, value: str) -> tuple[str, str]:
        """Return (container, name) of an artifact's address.

        The address is `CONTAINER/NAME`, `http://CONTAINER/artifacts/NAME`, or a URL below a base URL of the file.
        Raises InvalidError, with the right form in its message.
        """
        if not isinstance(value, str):
            raise _not_an_artifact(value)
        found = self._parse_url(value) if "://" in value else _pair(value.split("/"))
        if found is None:
            raise _not_an_artifact(value)
        return found

    def _parse_url(self, value: str) -> tuple[str, str] | None:
        for container, base_url in self._read().items():
            if value.startswith(f"{base_url}/artifacts/"):
                return _pair([container, unquote(value.removeprefix(f"{base_url}/artifacts/"))])
        try:
            parts = urlsplit(value)
        except ValueError:
            return None
        segments = parts.path.strip("/").split("/")
        if parts.scheme != "http" or parts.query or parts.fragment or segments[0] != "artifacts":
            return None
        # `netloc`, not `hostname`, which is in lower case: names may have capitals.
        return _pair([parts.netloc.removesuffix(":80"), *map(unquote, segments[1:])])

    def _read(self) -> Mapping[str, str]:
        if self._file is None:
            return {}
        with self._lock:
            try:
                stat = self._file.stat()
            except FileNotFoundError:
                return {}
            stamp = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            if stamp != self._stamp:
                self._known, self._stamp = _load(self._file), stamp
            return self._known


def _is_private(host: str) -> bool:
    try:
        found = [ipaddress.ip_address(info[4][0]) for info in socket.getaddrinfo(host, 80, type=socket.SOCK_STREAM)]
    except (OSError, ValueError):
        return False
    return bool(found) and all(each.is_private and not _is_special(each) for each in found)


def _is_special(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    plain = getattr(address, "ipv4_mapped", None) or address
    return bool(plain.is_loopback or plain.is_link_local or plain.is_unspecified or plain.is_multicast)


def _load(file: Path) -> dict[str, str]:
    try:
        known = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise SettingsError(f"BONSEYES_ADDRESSES={file} cannot be read: {error}.") from error
    if not isinstance(known, dict) or not all(
        urls.is_name(name) and isinstance(url, str) for name, url in known.items()
    ):
        raise SettingsError(f"BONSEYES_ADDRESSES={file} must be a JSON object of container names and base URLs.")
    return {name: url.rstrip("/") for name, url in known.items()}


def _pair(segments: list[str]) -> tuple[str, str] | None:
    if len(segments) != 2 or not all(map(urls.is_name, segments)):
        return None
    return segments[0], segments[1]


def _not_an_artifact(value: object) -> InvalidError:
    return InvalidError(f"{value!r} is not an artifact: write http://CONTAINER/artifacts/NAME or CONTAINER/NAME.")
