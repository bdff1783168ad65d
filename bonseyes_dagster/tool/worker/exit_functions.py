"""Wait for the tool's threads and run its exit functions, as Python does at its end, but with a time limit.

`child.py` calls this when the tool's function has ended. The worker ends processes that are still left.
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
    """Wait for threads, then run the registered exit functions; after `limit_s` a thread calls `give_up`.

    The order matters: the end of the threads closes pools of processes, then `multiprocessing` waits for the processes.
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
        f"the thread {', '.join(names)}" if names else "an exit function of the tool",
        limit_s,
    )
    give_up()
