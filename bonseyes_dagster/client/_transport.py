"""HTTP to one container: connections that stay open, retries where they are safe, errors as exceptions."""

from __future__ import annotations

import ipaddress
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from http.cookiejar import DefaultCookiePolicy
from typing import Any, TypeVar
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter

from bonseyes_dagster.backoff import Backoff
from bonseyes_dagster.client._bounds import ANSWER_LIMIT_BYTES, check_encoding, read_whole
from bonseyes_dagster.client._multipart import Multipart
from bonseyes_dagster.client.socket_adapter import SocketAdapter
from bonseyes_dagster.errors import (
    BonseyesError,
    ConnectionFailedError,
    InvalidError,
    UnavailableError,
    UnexpectedAnswerError,
    error_from_json,
)
from bonseyes_dagster.system import sockets
from bonseyes_dagster.version import __version__

__all__ = ["READ_TIMEOUT_S", "RETRY_S", "Transport", "iter_body", "json_body"]

CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 60.0
RETRY_S = 10.0
"""How long a call without an answer is repeated; a restart of a container takes less time."""
_POOL_SIZE = 256
_CHUNK_BYTES = 1 << 20
_WHOLE_ANSWER = 10  # a whole answer may take this many times the timeout of one read
_ERROR_LIMIT_BYTES = 1 << 24
_TRANSIENT = frozenset({502, 503, 504})
_T = TypeVar("_T")


class Transport:
    """Requests to one base URL. Many threads and forked processes may use it."""

    def __init__(
        self,
        base_url: str,
        *,
        token: str | None = None,
        session: requests.Session | None = None,
        retry_s: float = RETRY_S,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self.retry_s = retry_s
        host = _host(self.base_url)
        self._trust_env = not (sockets.path_of(self.base_url) or _is_internal(host))
        self._session = session
        self._headers = {"Accept": "application/json, */*;q=0.5", "Accept-Encoding": "identity"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"

    def url(self, path: str) -> str:
        """Return the whole URL of a path of the contract."""
        return self.base_url + path

    @property
    def shown_url(self) -> str:
        """Return the base URL for messages: without the path of a socket."""
        return sockets.plain_url(self.base_url)

    def get_json(self, path: str, parse: Callable[[Any], _T], **options: Any) -> _T:
        """GET `path` and parse its JSON; raise UnexpectedAnswerError when the answer breaks the contract."""
        return self.parsed(self.request("GET", path, **options), parse)

    def parsed(self, response: requests.Response, parse: Callable[[Any], _T]) -> _T:
        """Return `parse(JSON of the answer)`."""
        try:
            return parse(response.json())
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UnexpectedAnswerError(
                f"{_url_of(response)} broke the contract with its answer ({type(error).__name__}: {error}); "
                "is it a container of this project?"
            ) from error

    def pieces(self, response: requests.Response) -> Iterator[bytes]:
        """Yield the body of a streamed answer as it arrives; raise ConnectionFailedError when it ends too early."""
        return iter_body(response)

    def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: Multipart | bytes | None = None,
        stream: bool = False,
        read_timeout_s: float = READ_TIMEOUT_S,
        limit_bytes: int = ANSWER_LIMIT_BYTES,
        repeat: bool = True,
    ) -> requests.Response:
        """Send a request and return a successful answer; raise the error of any other answer.

        Without `stream`, an answer may have `limit_bytes` and may take ten times `read_timeout_s`.
        With `repeat`, connection errors and 502-504 are retried; pass False where a retry does harm.
        """
        deadline_s = time.monotonic() + (self.retry_s if repeat else 0.0)
        # Spread: the clients of one restarted container must not come back all at once.
        backoff = Backoff(0.05, 2.0, factor=2.5, spread=0.25)
        while True:
            try:
                return self._send(method, path, params, headers, body, stream, read_timeout_s, limit_bytes)
            except (ConnectionFailedError, UnavailableError):
                pause_s = backoff.take()
                if time.monotonic() + pause_s > deadline_s:
                    raise
                time.sleep(pause_s)

    def _send(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None,
        headers: Mapping[str, str] | None,
        body: Multipart | bytes | None,
        stream: bool,
        read_timeout_s: float,
        limit_bytes: int,
    ) -> requests.Response:
        deadline_s = time.monotonic() + _WHOLE_ANSWER * read_timeout_s
        try:
            response = (self._session or _shared_session(self._trust_env)).request(
                method,
                self.url(path),
                params=params,
                headers={**self._headers, **(headers or {})},
                data=body,
                stream=True,
                timeout=(CONNECT_TIMEOUT_S, read_timeout_s),
                allow_redirects=False,
            )
            is_good = response.ok and not response.is_redirect
            if is_good:
                check_encoding(response)
            if not stream or not is_good:
                limit_bytes = limit_bytes if is_good else _ERROR_LIMIT_BYTES
                read_whole(response, limit_bytes=limit_bytes, deadline_s=deadline_s)
        except requests.exceptions.InvalidURL as error:
            raise InvalidError(f"{self.shown_url}{path} is not a URL: {str(error).rstrip('.')}.") from error
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            raise ConnectionFailedError(f"{self.shown_url} does not answer: {reason_of(error)}.") from error
        if is_good:
            return response
        with response:
            raise _error_of(response)


def iter_body(response: requests.Response) -> Iterator[bytes]:
    """Yield the body as it arrives, undecoded; raise ConnectionFailedError when it ends too early."""
    try:
        # `read1` returns the bytes that have arrived; `iter_content` waits for a full chunk.
        while chunk := response.raw.read1(_CHUNK_BYTES, decode_content=False):
            yield chunk
    except urllib3.exceptions.HTTPError as error:
        raise ConnectionFailedError(f"{_url_of(response)} broke off its answer: {reason_of(error)}.") from error


def reason_of(error: BaseException) -> str:
    """Return the innermost reason of a network error, without a full stop: the text of the system or the peer."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, OSError) and inner.strerror:
            return inner.strerror
        error, inner = inner, _cause(inner)
    return str(error).rstrip(".") or type(error).__name__


def _cause(error: BaseException) -> BaseException | None:
    # requests and urllib3 keep a wrapped error in `reason`, among the arguments, or as the cause.
    candidates = (getattr(error, "reason", None), *error.args, error.__cause__)
    return next((candidate for candidate in candidates if isinstance(candidate, BaseException)), None)


def _url_of(response: requests.Response) -> str:
    return sockets.plain_url(response.url)


def _error_of(response: requests.Response) -> BonseyesError:
    if response.is_redirect:
        where = response.headers.get("Location", "elsewhere")
        return UnexpectedAnswerError(f"{_url_of(response)} redirects to {where}; use the address behind it.")
    try:
        body = response.json()
    except (ValueError, requests.RequestException):
        body = None
    if isinstance(body, dict) and isinstance(body.get("error"), dict):
        error = error_from_json(response.status_code, body)
    else:
        text = f"{_url_of(response)} answered {response.status_code} {response.reason}."
        error = error_from_json(response.status_code, {"error": {"message": text}})
    if response.status_code in _TRANSIENT and not isinstance(error, UnavailableError):
        return UnavailableError(error.message, detail=error.detail, request_id=error.request_id)
    return error


def _host(base_url: str) -> str:
    try:
        parts = urlsplit(base_url)
        host, _ = parts.hostname, parts.port
        socket = sockets.path_of(base_url)
    except ValueError as error:
        raise InvalidError(f"{base_url!r} is not a URL: {error}.") from error
    if socket is not None and socket.startswith("/"):
        return socket
    if parts.scheme not in ("http", "https") or not host:
        raise InvalidError(f"{base_url!r} is not a base URL: write http://HOST or http://HOST:PORT.")
    return host


def _is_internal(host: str) -> bool:
    """Tell whether `host` is this machine or a container's name; an HTTP proxy can reach neither."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return "." not in host


_sessions: dict[tuple[int, bool], requests.Session] = {}


def _shared_session(trust_env: bool) -> requests.Session:
    """Return the session of this process: one pool of connections for all containers.

    Threads can share it because it does not change: it keeps no cookies, and each call brings its token.
    A forked child makes its own session, because two processes must not use one connection. The child does not close
    the parent's session: closing takes locks, and another thread may have held them at the fork.
    """
    key = (os.getpid(), trust_env)
    return _sessions.get(key) or _sessions.setdefault(key, _new_session(trust_env))


def _new_session(trust_env: bool) -> requests.Session:
    session = requests.Session()
    session.trust_env = trust_env
    session.auth = _keep_headers
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    session.headers["User-Agent"] = f"bonseyes-dagster/{__version__}"
    adapter = HTTPAdapter(pool_connections=64, pool_maxsize=_POOL_SIZE)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    session.mount(f"{sockets.SCHEME}://", SocketAdapter(pool_connections=64, pool_maxsize=_POOL_SIZE))
    return session


def _keep_headers(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Act as the session's authentication, so that requests does not replace our Authorization from ~/.netrc."""
    return request


def json_body(value: object) -> bytes:
    """Return `value` as a JSON request body."""
    return json.dumps(value, allow_nan=False).encode()
