"""Limit fetches to the project's containers and the allow-list. Every connection is checked."""

from __future__ import annotations

import hashlib
import ipaddress
import os
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import NewConnectionError

from bonseyes_dagster.client import Addresses
from bonseyes_dagster.client.socket_adapter import SocketAdapter
from bonseyes_dagster.errors import ForbiddenError, TooLargeError, ToolError
from bonseyes_dagster.settings import Settings
from bonseyes_dagster.system import sockets
from bonseyes_dagster.system.storage import check_reserve

__all__ = ["Fetched", "Policy", "fetch", "file_name_of", "session"]

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_CHUNK_BYTES = 1 << 20
_CONNECT_TIMEOUT_S = 10.0
_READ_TIMEOUT_S = 60.0
_MOST_REDIRECTS = 5
_CHECK_EVERY_BYTES = 1 << 24
_PORTS = {"http": 80, "https": 443}
# NAT64's well-known prefix, IPv4-compatible and IPv4-translated addresses.
_IPV4_AT_THE_END = tuple(map(ipaddress.IPv6Network, ("64:ff9b::/96", "::/96", "::ffff:0:0:0/96")))
_LOOPBACK = 1
# Local NAT64 prefixes. Only the gateway knows their length, and so the place of the IPv4 address in the IPv6 address.
_LOCAL_NAT64 = ipaddress.IPv6Network("64:ff9b:1::/48")
_PORT = re.compile("[0-9]{1,5}")
# urlsplit() drops some of these characters and does not decode %2e in a host. urllib3, which connects, differs in both.
_AMBIGUOUS = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Policy:
    """The rules for connections.

    `outbound` holds host names, `*.SUFFIX`, `*` (every public address), IP addresses and networks. All but networks may
    have `:PORT`. A name allows public addresses only: its DNS server could answer with an address of our own network.
    So a private address must be listed itself.
    """

    outbound: tuple[str, ...]
    addresses: Addresses

    @classmethod
    def from_settings(cls, settings: Settings) -> Policy:
        """Return the policy of `BONSEYES_OUTBOUND` and `BONSEYES_ADDRESSES`."""
        return cls(settings.outbound, Addresses.from_settings(settings))

    def check_url(self, url: str) -> None:
        """Raise ForbiddenError with the reason if `url` may not be fetched. Send no request to a DNS server."""
        resolved = self.resolve_container(url)
        if self._is_known_socket(resolved):
            return
        scheme, host, port = _split(resolved)
        if scheme not in _PORTS or not host:
            raise ForbiddenError(f"{url!r} is not an http or https URL.")
        if self._is_container(host, port) or self._is_listed(host, port):
            return
        raise ForbiddenError(f"This container may not fetch from the host {host!r}; allow it in BONSEYES_OUTBOUND.")

    def resolve_container(self, url: str) -> str:
        """Return `url` with the name of a container replaced by its real address."""
        try:
            parts = urlsplit(url)
        except ValueError as error:
            raise ForbiddenError(f"{url!r} is not a URL: {error}.") from error
        if parts.scheme == "http" and parts.netloc in self.addresses.containers():
            return self.addresses.base_url(parts.netloc) + url.split("://", 1)[1][len(parts.netloc) :]
        return url

    def resolve(self, host: str, port: int) -> list[tuple[Any, ...]]:
        """Return the allowed addresses of `host`, as getaddrinfo() does. Raise ForbiddenError if there is none."""
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except UnicodeError as error:
            raise ForbiddenError(f"{host[:80]!r} cannot be a host's name: {error}.") from error
        allowed = [info for info in found if self._is_allowed(host, port, ipaddress.ip_address(info[4][0]))]
        if not allowed:
            shown = ", ".join(sorted({str(info[4][0]) for info in found}))
            raise ForbiddenError(
                f"{host!r} is {shown}, which this container may not connect to; "
                "an address that is not public must be listed itself in BONSEYES_OUTBOUND."
            )
        return list(allowed)

    def _is_allowed(self, host: str, port: int, address: _Address) -> bool:
        plain = _final_address(address)
        if self._is_known_address(host, port):
            return True
        if self._is_container(host, port):
            return plain.is_private and not (plain.is_loopback or plain.is_link_local or plain.is_unspecified)
        if self._is_address_listed(plain, port) or self._is_address_listed(address, port):
            return self._is_listed(host, port)
        return _is_public(plain) and self._is_listed(host, port)

    def _is_known_address(self, host: str, port: int) -> bool:
        bases = (_split(self.addresses.base_url(name)) for name in self.addresses.containers())
        return any(base[0] in _PORTS and (host, port) == base[1:] for base in bases)

    def _is_known_socket(self, url: str) -> bool:
        path = sockets.path_of(url)
        known = (sockets.path_of(self.addresses.base_url(name)) for name in self.addresses.containers())
        return path is not None and path in known

    def _is_container(self, host: str, port: int) -> bool:
        """Tell whether `host` is a container. Without a file of addresses, any name without dots is one, at port 80."""
        if self.addresses.containers():
            return self._is_known_address(host, port)
        return port == 80 and "." not in host and ":" not in host

    def _is_listed(self, host: str, port: int) -> bool:
        return any(_is_match(entry, host, port) for entry in self.outbound)

    def _is_address_listed(self, address: _Address, port: int) -> bool:
        return any(_is_network_match(entry, address, port) for entry in self.outbound)


def _final_address(address: _Address) -> _Address:
    """Return the IPv4 address to which a packet for `address` finally goes, or `address` itself.

    A NAT64 gateway, a 6to4 or Teredo relay, or the system itself takes the IPv4 address out of the IPv6 address.
    """
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address.ipv4_mapped or address.sixtofour:
        return address.ipv4_mapped or address.sixtofour or address
    if address.teredo:
        return address.teredo[1]
    if any(address in network for network in _IPV4_AT_THE_END) and int(address) > _LOOPBACK:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def _is_public(address: _Address) -> bool:
    return address.is_global and not address.is_multicast and address not in _LOCAL_NAT64


def _split(url: str) -> tuple[str, str, int]:
    try:
        parts = urlsplit(url)
        is_escaped = "%" in (parts.hostname or "") and "[" not in parts.netloc
        if is_escaped or _AMBIGUOUS.search(url) or re.search(r"[\s\\]", parts.netloc):
            raise ValueError("programs disagree about its host")
        return parts.scheme, (parts.hostname or "").rstrip("."), parts.port or _PORTS.get(parts.scheme, 0)
    except ValueError as error:
        raise ForbiddenError(f"{url!r} is not a URL: {error}.") from error


def _entry(text: str) -> tuple[str, int | None]:
    """Split `HOST[:PORT]`; an IPv6 address needs brackets to have a port."""
    if text.startswith("[") and "]" in text:
        host, _, port = text[1:].partition("]")
        return host, int(port[1:]) if _PORT.fullmatch(port[1:]) else None
    host, colon, port = text.rpartition(":")
    if colon and _PORT.fullmatch(port) and ":" not in host:
        return host, int(port)
    return text, None


def _is_match(text: str, host: str, port: int) -> bool:
    pattern, only_port = _entry(text.lower())
    if only_port not in (None, port):
        return False
    if pattern == "*" or pattern == host:
        return True
    if pattern.startswith("*."):
        return host.endswith(pattern[1:])
    try:
        return _is_network_match(text, ipaddress.ip_address(host), port)
    except ValueError:
        return False


def _is_network_match(text: str, address: _Address, port: int) -> bool:
    pattern, only_port = _entry(text)
    if only_port not in (None, port):
        return False
    if pattern.lower() == "localhost":
        return address.is_loopback
    try:
        return address in ipaddress.ip_network(pattern, strict=False)
    except ValueError:
        return False


def session(policy: Policy) -> requests.Session:
    """Return a session that checks every connection: first the host name, then the address of the connection."""
    made = requests.Session()
    # A proxy would make unchecked connections, and ~/.netrc would give passwords to other hosts.
    made.trust_env = False
    made.max_redirects = _MOST_REDIRECTS
    made.mount("http://", _Adapter(policy))
    made.mount("https://", _Adapter(policy))
    made.mount(f"{sockets.SCHEME}://", _SocketAdapter(policy))
    return made


class _Adapter(HTTPAdapter):
    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _pools(self._policy.resolve)

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        self._policy.check_url(request.url or "")
        return super().send(request, *args, **kwargs)


class _SocketAdapter(SocketAdapter):
    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        super().__init__()

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        self._policy.check_url(request.url or "")
        return super().send(request, *args, **kwargs)


def _pools(resolve: Callable[[str, int], list[tuple[Any, ...]]]) -> dict[str, type[HTTPConnectionPool]]:
    class Checked:
        """Connects to a checked address, without a second DNS request."""

        def _new_conn(self) -> socket.socket:
            return _connect(self, resolve)

    class CheckedHTTP(Checked, HTTPConnection):
        pass

    class CheckedHTTPS(Checked, HTTPSConnection):
        pass

    class PoolHTTP(HTTPConnectionPool):
        ConnectionCls = CheckedHTTP

    class PoolHTTPS(HTTPSConnectionPool):
        ConnectionCls = CheckedHTTPS

    return {"http": PoolHTTP, "https": PoolHTTPS}


def _connect(connection: Any, resolve: Callable[[str, int], list[tuple[Any, ...]]]) -> socket.socket:
    host = connection.host.strip("[]").rstrip(".")
    failure: OSError = OSError("no address")
    try:
        for family, kind, protocol, _, address in resolve(host, connection.port):
            connected = socket.socket(family, kind, protocol)
            try:
                connected.settimeout(_CONNECT_TIMEOUT_S)
                connected.connect(address)
            except OSError as error:
                connected.close()
                failure = error
            else:
                connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return connected
    except socket.gaierror as error:
        failure = error
    raise NewConnectionError(connection, f"{failure}") from failure


@dataclass(frozen=True, slots=True)
class Fetched:
    """A fetched file: its name, its size in bytes and its sha256 in hex."""

    filename: str
    size: int
    sha256: str


def fetch(url: str, target: Path, policy: Policy, settings: Settings) -> Fetched:
    """Stream `url` durably to the new file `target`. Raise ForbiddenError, or ToolError with the reason."""
    try:
        with session(policy) as http, http.get(policy.resolve_container(url), **_options()) as response:
            if not response.ok:
                raise ToolError(f"{url} answered {response.status_code} {response.reason}.")
            size, sha256 = _receive(response, target, settings)
    except (requests.RequestException, UnicodeError) as error:
        raise ToolError(f"{url} could not be fetched: {error}") from error
    return Fetched(target.name, size, sha256)


def _options() -> dict[str, Any]:
    return {
        "stream": True,
        "timeout": (_CONNECT_TIMEOUT_S, _READ_TIMEOUT_S),
        "headers": {"Accept": "*/*", "Accept-Encoding": "identity"},
    }


def _receive(response: requests.Response, target: Path, settings: Settings) -> tuple[int, str]:
    digest, size, checked = hashlib.sha256(), 0, 0
    with target.open("xb") as file:
        for chunk in response.iter_content(_CHUNK_BYTES):
            size += len(chunk)
            if size > settings.upload_limit_bytes:
                raise TooLargeError(
                    f"{sockets.plain_url(response.url)} is larger than "
                    f"the {settings.upload_limit_bytes} bytes that this container takes."
                )
            if size - checked > _CHECK_EVERY_BYTES:
                checked = size
                check_reserve(target.parent, settings.disk_reserve_bytes)
            file.write(chunk)
            digest.update(chunk)
        file.flush()
        os.fsync(file.fileno())
    return size, digest.hexdigest()


def file_name_of(url: str) -> str:
    """Return the last segment of a URL's path."""
    return unquote(urlsplit(url).path.rsplit("/", 1)[-1])
