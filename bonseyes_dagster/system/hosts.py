"""Check the Host header of requests against the names of a server that listens at a port.

A foreign page can make its name resolve to this machine later (DNS rebinding). Then the browser treats the page as
the server's own: the page may set any header and read any answer. Only the Host header still holds the page's name.
So the web services, Dagster's webserver and the gateway check it. A server at a unix socket does not need the check:
no browser connects to a unix socket.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable

from bonseyes_dagster.errors import ForbiddenError
from bonseyes_dagster.settings import Settings

__all__ = ["check_own_host", "is_loopback", "is_own_host", "own_names", "split_host"]


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can connect to `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def split_host(text: str) -> tuple[str, str]:
    """Return (lower-case name, port or "") of a Host header or an allow-list entry."""
    text = text.strip().lower()
    if text.startswith("["):
        name, bracket, rest = text.partition("]")
        return name + bracket, rest.removeprefix(":")
    name, _, port = text.partition(":")
    return name, port


def own_names(settings: Settings, *more: str) -> frozenset[str]:
    """Return the names of this container: its own, the machine's, `localhost`, `more` and those in the settings."""
    allowed = (split_host(entry)[0] for entry in settings.allowed_hosts)
    names = ("localhost", socket.gethostname(), settings.container, *more, *allowed)
    return frozenset(name.lower() for name in names if name)


def check_own_host(host: str | None, names: Iterable[str]) -> None:
    """Raise ForbiddenError unless `host` is a name of the server or an address."""
    if not is_own_host(host, names):
        raise ForbiddenError(
            f"This server does not answer to the Host {host!r}; add it to BONSEYES_ALLOWED_HOSTS to allow it."
        )


def is_own_host(host: str | None, names: Iterable[str]) -> bool:
    """Tell whether `host` is one of the names or an IP address; DNS rebinding needs a name."""
    name = split_host(host or "")[0]
    return name in names or _is_address(name)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True
