"""A mule that writes its facts to a file, and later that it got the signal to stop."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path


def work() -> None:
    """Write facts about this process, then wait for the end."""
    import uwsgi

    file = Path(os.environ["MULE_FILE"])

    def stop(*_: object) -> None:
        file.write_text("stopped")
        os._exit(0)

    signal.signal(signal.SIGINT, stop)
    file.write_text(f"{uwsgi.mule_id()} {sys.executable}")
    while True:
        time.sleep(0.1)
