"""Telling the dashboard that this container is there: in the background, again and again until it answers, quietly."""

from __future__ import annotations

import logging
import threading
import time

from bonseyes_dagster.client import Addresses
from bonseyes_dagster.errors import BonseyesError
from bonseyes_dagster.settings import Settings
from bonseyes_dagster.tool.outbound import Policy, session

__all__ = ["register", "register_in_background"]

_log = logging.getLogger(__name__)
DASHBOARD = "dashboard"
_TIMEOUT_S = 5.0
_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 60.0


def register_in_background(name: str, settings: Settings) -> None:
    """Register from the first server process once uWSGI has forked it; do nothing under another server."""
    try:
        import uwsgi
    except ImportError:
        return

    def begin() -> None:
        # A thread does not survive a fork, so it is started after; mules have number 0.
        if uwsgi.worker_id() == 1:
            threading.Thread(target=_keep_trying, args=(name, settings), name="registration", daemon=True).start()

    uwsgi.post_fork_hook = begin


def _keep_trying(name: str, settings: Settings) -> None:
    pause_s = _FIRST_PAUSE_S
    while not register(name, settings):
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


def register(name: str, settings: Settings) -> bool:
    """Register once; tell whether there is nothing left to do. A project without a dashboard is a fine project."""
    addresses = Addresses.from_settings(settings)
    if name == DASHBOARD:
        return True
    try:
        url = f"{addresses.base_url(DASHBOARD)}/containers"
        with session(Policy.from_settings(settings)) as http:
            answer = http.post(url, json={"name": name}, timeout=_TIMEOUT_S)
    except (OSError, BonseyesError) as error:  # requests' errors are OSErrors
        _log.debug("the dashboard does not answer yet: %s", error)
        return False
    if answer.ok:
        _log.info("registered with the dashboard as %s", name)
    # What it refuses once, it refuses for ever; what it could not do, it may do later.
    return answer.status_code < 500
