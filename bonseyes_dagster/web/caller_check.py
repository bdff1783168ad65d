"""Check the caller of a web service: the Host header of the request, and the user who has connected.

At a unix socket, the mode of its folder protects the service, so this module checks nothing.
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
except ImportError:  # another WSGI server, for example in tests
    uwsgi = None

__all__ = ["CallerCheck"]

_thread_local = threading.local()


class CallerCheck:
    """Checks requests that come to a port; at a loopback port, it refuses other users of the machine."""

    def __init__(self, app_name: str) -> None:
        bind = _bind()
        self._is_open = not bind.startswith("/")
        self._is_loopback = self._is_open and is_loopback(bind.rpartition(":")[0])
        self._names = own_names(Settings.from_environ(), app_name, split_host(bind)[0])

    def admits(self, environ: WSGIEnvironment) -> bool:
        """Tell whether the service may answer a request."""
        is_own = not self._is_open or is_own_host(environ.get("HTTP_HOST"), self._names)
        return is_own and self._is_of_own_user(environ)

    def check(self) -> None:
        """Raise ForbiddenError if the service must not answer the current request."""
        if self._is_open:
            check_own_host(request.headers.get("Host"), self._names)
        if not self._is_of_own_user(request.environ):
            raise ForbiddenError(
                "This container answers only to the user who runs it; to serve other users, bind a unix socket."
            )

    def _is_of_own_user(self, environ: WSGIEnvironment) -> bool:
        # A held request has no connection of uWSGI any more. It passed this check before its wait.
        if not self._is_loopback or HELD_KEY in environ:
            return True
        try:
            with socket.socket(fileno=os.dup(uwsgi.connection_fd())) as connection:
                ends = connection.getpeername()[:2], connection.getsockname()[:2]
        except OSError:  # the peer is gone
            return False
        return _peers().admits(*ends)


def _peers() -> Peers:
    if not hasattr(_thread_local, "peers"):
        _thread_local.peers = Peers()
    peers: Peers = _thread_local.peers
    return peers


def _bind() -> str:
    value = uwsgi.opt.get("http-socket", b"") if uwsgi is not None else b""
    return value.decode() if isinstance(value, bytes) else ""
