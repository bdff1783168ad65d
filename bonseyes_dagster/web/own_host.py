"""Who may ask this web service: by the Host that a request names, and by the user who has connected.

At a unix socket its folder decides, and nothing is asked here.
"""

from __future__ import annotations

import os
import socket
import threading
from typing import TYPE_CHECKING

from flask import request

from bonseyes_dagster.errors import ForbiddenError
from bonseyes_dagster.settings import Settings
from bonseyes_dagster.system.hosts import check_own_host, is_loopback, is_own_host, own_names, split_host
from bonseyes_dagster.system.peers import Peers
from bonseyes_dagster.web.holding import HELD_KEY

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

try:
    import uwsgi
except ImportError:  # any other WSGI server, such as the one of the tests
    uwsgi = None

__all__ = ["OwnHost"]

_of_thread = threading.local()


class OwnHost:
    """Checks requests that come to a port; at one of a loopback address, other users of the machine get nothing."""

    def __init__(self, app_name: str) -> None:
        bind = _bind()
        self._is_open = not bind.startswith("/")
        self._is_loopback = self._is_open and is_loopback(bind.rpartition(":")[0])
        self._names = own_names(Settings.from_environ(), app_name, split_host(bind)[0])

    def admits(self, environ: WSGIEnvironment) -> bool:
        """Tell whether a request is to be answered."""
        is_own = not self._is_open or is_own_host(environ.get("HTTP_HOST"), self._names)
        return is_own and self._is_of_own_user(environ)

    def check(self) -> None:
        """Raise ForbiddenError when the current request is not to be answered."""
        if self._is_open:
            check_own_host(request.headers.get("Host"), self._names)
        if not self._is_of_own_user(request.environ):
            raise ForbiddenError(
                "This container answers only to the user who runs it; for others, bind a unix socket of theirs."
            )

    def _is_of_own_user(self, environ: WSGIEnvironment) -> bool:
        # Asked again after a wait, a request has no connection of uWSGI's any more; it was admitted before.
        if not self._is_loopback or HELD_KEY in environ:
            return True
        try:
            with socket.socket(fileno=os.dup(uwsgi.connection_fd())) as connection:
                ends = connection.getpeername()[:2], connection.getsockname()[:2]
        except OSError:  # the peer is gone
            return False
        return _peers().admits(*ends)


def _peers() -> Peers:
    if not hasattr(_of_thread, "peers"):
        _of_thread.peers = Peers()
    peers: Peers = _of_thread.peers
    return peers


def _bind() -> str:
    value = uwsgi.opt.get("http-socket", b"") if uwsgi is not None else b""
    return value.decode() if isinstance(value, bytes) else ""
