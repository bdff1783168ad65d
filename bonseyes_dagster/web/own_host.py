"""The names that this web service answers to, from its settings and from what uWSGI has bound."""

from __future__ import annotations

from flask import request

from bonseyes_dagster.hosts import check_own_host, is_own_host, own_names, split_host
from bonseyes_dagster.settings import Settings

try:
    import uwsgi
except ImportError:  # any other WSGI server, such as the one of the tests
    uwsgi = None

__all__ = ["OwnHost"]


class OwnHost:
    """Checks the Host of requests; at a unix socket every Host is right."""

    def __init__(self, app_name: str) -> None:
        bind = _bind()
        self._is_open = not bind.startswith("/")
        self._names = own_names(Settings.from_environ(), app_name, split_host(bind)[0])

    def is_own(self, host: str | None) -> bool:
        """Tell whether this service answers to `host`."""
        return not self._is_open or is_own_host(host, self._names)

    def check(self) -> None:
        """Raise ForbiddenError when the current request is for somebody else."""
        if self._is_open:
            check_own_host(request.headers.get("Host"), self._names)


def _bind() -> str:
    value = uwsgi.opt.get("http-socket", b"") if uwsgi is not None else b""
    return value.decode() if isinstance(value, bytes) else ""
