"""What a container does beside answering requests: it tells the dashboard that it is there, and its own chores."""

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
# A dashboard that has lost its registry gets it back within this time.
_AGAIN_S = 60.0


def start_in_background(name: str, settings: Settings, *chores: Callable[[], None]) -> None:
    """Register `name` and do each chore in a thread of the first process that uWSGI forks; elsewhere do nothing."""
    try:
        import uwsgi
    except ImportError:
        return

    def begin() -> None:
        # Threads do not survive a fork, so they are started after it; mules have number 0.
        if uwsgi.worker_id() == 1:
            for work in (lambda: _keep_registering(name, settings), *chores):
                threading.Thread(target=work, daemon=True).start()

    uwsgi.post_fork_hook = begin


def _keep_registering(name: str, settings: Settings) -> None:
    backoff = Backoff(1.0, _AGAIN_S)
    while True:
        time.sleep(_AGAIN_S if register(name, settings) else backoff.take())


def register(name: str, settings: Settings) -> bool:
    """Register once; tell whether there is nothing left to do. A project without a dashboard is a fine project."""
    try:
        dashboard = Container(Addresses.from_settings(settings).base_url(_DASHBOARD), name=_DASHBOARD)
        headers = {"Content-Type": "application/json"}
        body = json.dumps({"name": name}).encode()
        dashboard.transport.request("POST", "/containers", headers=headers, body=body, repeat=False)
    except BonseyesError as error:
        _log.debug("the dashboard does not answer yet: %s", error)
        # What it refuses once, it refuses for ever; what it could not do, it may do later.
        return 400 <= error.http_status < 500
    _log.debug("registered with the dashboard as %s", name)
    return True
