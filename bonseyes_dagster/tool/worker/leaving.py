"""How the child of an artifact leaves its tool: as an interpreter does at its end, but within a limit.

`child.py` calls this when the tool's function has ended. What outlives it, the worker ends.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import threading
import time
from collections.abc import Callable

__all__ = ["run_exit_functions"]

_log = logging.getLogger("bonseyes_dagster.tool")
LIMIT_S = 10.0


def run_exit_functions(give_up: Callable[[], None], *, limit_s: float = LIMIT_S) -> None:
    """Wait for threads and run what was registered for the end; call `give_up`, from a thread, when it takes too long.

    In this order: pools of processes are closed with the threads, and then `multiprocessing` waits for their processes.
    """
    if threading.active_count() == 1 and not atexit._ncallbacks():
        return
    threading.Thread(target=_wait, args=(give_up, limit_s), daemon=True).start()
    for step in (threading._shutdown, atexit._run_exitfuncs):  # type: ignore[attr-defined]
        with contextlib.suppress(Exception):
            step()


def _wait(give_up: Callable[[], None], limit_s: float) -> None:
    time.sleep(limit_s)
    names = [
        thread.name
        for thread in threading.enumerate()
        if not thread.daemon and thread not in (threading.main_thread(), threading.current_thread())
    ]
    _log.warning(
        "The tool's function has ended, but %s still ran %g s later and is ended now.",
        f"the thread {', '.join(names)}" if names else "what it registered for the exit of its process",
        limit_s,
    )
    give_up()
