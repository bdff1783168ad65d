"""Start a Dagster server whose imports take seconds at once, but let it run only when another server listens.

    python -m bonseyes_dagster.local.after MODULE --after HOST:PORT -- ARGUMENTS

The imports then use the time in which the other one starts.
"""

from __future__ import annotations

import importlib
import runpy
import socket
import sys
import time

_TIMEOUT_S = 120.0
_PRELOADED = {"dagster_webserver": "dagster_webserver.cli", "dagster._daemon": "dagster._daemon.cli"}


def main(argv: list[str]) -> None:
    """Import MODULE, wait, become MODULE."""
    module, _, address, _, *arguments = argv
    importlib.import_module(_PRELOADED.get(module, module))
    host, _, port = address.rpartition(":")
    _wait(host, int(port))
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _wait(host: str, port: int) -> None:
    until_s = time.monotonic() + _TIMEOUT_S
    while True:
        try:
            socket.create_connection((host, port), timeout=5).close()
            return
        except OSError:
            if time.monotonic() > until_s:
                sys.exit(f"nobody listens at {host}:{port} after {_TIMEOUT_S:.0f} s")
            time.sleep(0.05)


if __name__ == "__main__":
    main(sys.argv[1:])
