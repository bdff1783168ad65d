"""What a server process does once it has been forked: tell the dashboard that it is there, and tidy up."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from bonseyes_dagster.client import Addresses, Container
from bonseyes_dagster.errors import BonseyesError, ConflictError
from bonseyes_dagster.settings import Settings

__all__ = ["register", "start_background"]

_log = logging.getLogger(__name__)
DASHBOARD = "dashboard"
_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 60.0
_CLEAN_S = 600.0


def start_background(name: str, settings: Settings, clean: Callable[[], None]) -> None:
    """Start what goes on beside the requests, in the first process that uWSGI forks; nothing under another server."""
    try:
        import uwsgi
    except ImportError:
        return

    def begin() -> None:
        # Threads do not survive a fork, so they are started after it.
        if uwsgi.worker_id() == 1:
            threading.Thread(target=_keep_trying, args=(name, settings), name="registration", daemon=True).start()
            threading.Thread(target=_keep_clean, args=(clean,), name="cleaning", daemon=True).start()

    uwsgi.post_fork_hook = begin


def register(name: str, settings: Settings) -> bool:
    """Register once with the dashboard; tell whether there is nothing left to do."""
    dashboard = Container(Addresses.from_settings(settings).base_url(DASHBOARD), name=DASHBOARD)
    try:
        dashboard.transport.request(
            "POST", "/containers", headers={"Content-Type": "application/json"}, body=_body(name), repeat=False
        )
    except ConflictError:
        return True
    except BonseyesError as error:
        _log.debug("the dashboard does not answer yet: %s", error)
        # What it refuses once, it refuses for ever; what it could not do, it may do later.
        return 400 <= error.http_status < 500
    _log.info("registered with the dashboard as %s", name)
    return True


def _body(name: str) -> bytes:
    return f'{{"name": "{name}"}}'.encode()  # names hold nothing that JSON would escape


def _keep_trying(name: str, settings: Settings) -> None:
    pause_s = _FIRST_PAUSE_S
    while not register(name, settings):
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


def _keep_clean(clean: Callable[[], None]) -> None:
    while True:
        try:
            clean()
        except Exception:  # the storage may be away for a while; a thread that ends would never tidy up again
            _log.warning("tidying up failed, to be tried again", exc_info=True)
        time.sleep(_CLEAN_S)
