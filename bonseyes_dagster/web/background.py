"""Background threads of a container: one registers the container at the dashboard, others run its chores."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable

from bonseyes_dagster.backoff import Backoff
from bonseyes_dagster.client import Addresses, Container
from bonseyes_dagster.errors import BonseyesError
from bonseyes_dagster.settings import Settings

__all__ = ["register", "start_in_background"]

_log = logging.getLogger(__name__)
_DASHBOARD = "dashboard"
# The interval of registrations: a dashboard that lost its registry gets it back within this time.
_AGAIN_S = 60.0


def start_in_background(name: str, settings: Settings, *chores: Callable[[], None]) -> None:
    """Register `name` and run each chore in a thread of uWSGI's first worker; do nothing outside uWSGI."""
    try:
        import uwsgi
    except ImportError:
        return

    def begin() -> None:
        # Start the threads after the fork, because threads do not survive it. Mules have the worker id 0.
        if uwsgi.worker_id() == 1:
            for work in (lambda: _keep_registering(name, settings), *chores):
                threading.Thread(target=work, daemon=True).start()

    uwsgi.post_fork_hook = begin


def _keep_registering(name: str, settings: Settings) -> None:
    backoff = Backoff(1.0, _AGAIN_S)
    while True:
        time.sleep(_AGAIN_S if register(name, settings) else backoff.take())


def register(name: str, settings: Settings) -> bool:
    """Send one registration; return False if a retry can succeed. A project may have no dashboard."""
    try:
        dashboard = Container(Addresses.from_settings(settings).base_url(_DASHBOARD), name=_DASHBOARD)
        headers = {"Content-Type": "application/json"}
        body = json.dumps({"name": name}).encode()
        dashboard.transport.request("POST", "/containers", headers=headers, body=body, repeat=False)
    except BonseyesError as error:
        _log.debug("The dashboard did not register this container: %s", error)
        # A 4xx error does not change with a retry.
        return 400 <= error.http_status < 500
    _log.debug("The dashboard registered this container as %s.", name)
    return True
