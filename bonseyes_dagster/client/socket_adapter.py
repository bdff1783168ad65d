"""HTTP over a unix socket for `requests`. The client's transport and a tool's own session mount it."""

from __future__ import annotations

import os
import socket
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError
from urllib3.poolmanager import key_fn_by_scheme

from bonseyes_dagster.system import sockets

__all__ = ["SocketAdapter"]


class _Connection(HTTPConnection):
    def __repr__(self) -> str:
        return _name_of(self.host)

    def _new_conn(self) -> socket.socket:
        timeout_s = self.timeout if isinstance(self.timeout, int | float) else None
        try:
            return sockets.connect(_path_of(self.host), timeout_s)
        except TimeoutError as error:
            raise ConnectTimeoutError(self, str(error)) from error
        except OSError as error:
            raise NewConnectionError(self, str(error)) from error


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection

    def __str__(self) -> str:
        return _name_of(self.host)


class SocketAdapter(HTTPAdapter):
    """Sends requests with `http+unix` URLs. Their Host header is the name of the socket."""

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        """Give the pool manager pools of sockets."""
        super().init_poolmanager(*arguments, **options)
        self.poolmanager.pool_classes_by_scheme = {sockets.SCHEME: _Pool}
        self.poolmanager.key_fn_by_scheme = {sockets.SCHEME: key_fn_by_scheme["http"]}

    def get_connection_with_tls_context(
        self, request: requests.PreparedRequest, *_: Any, **__: Any
    ) -> HTTPConnectionPool:
        """Return the pool of the request's socket."""
        path = sockets.path_of(request.url or "")
        if not path:
            raise requests.exceptions.InvalidURL(f"{request.url} names no socket.", request=request)
        pool: HTTPConnectionPool = self.poolmanager.connection_from_host(_host_of(path), scheme=sockets.SCHEME)
        return pool

    def add_headers(self, request: requests.PreparedRequest, **_: Any) -> None:
        """Set the Host header to the socket's name, because the host in the URL is a path."""
        request.headers.setdefault("Host", sockets.plain_url(request.url or "").split("/")[2])


def _host_of(path: str) -> str:
    """Return the path as hexadecimal digits: urllib3 converts hosts to lower case."""
    return os.fsencode(path).hex()


def _path_of(host: str) -> str:
    return os.fsdecode(bytes.fromhex(host))


def _name_of(host: str) -> str:
    return os.path.basename(_path_of(host))  # noqa: PTH119 - a name for messages
