"""Import a Dagster server, wait for the files and sockets that it needs, then run it.

    python -m bonseyes_dagster.embedded.wait_for_file MODULE --after FILE --after SOCKET -- ARGUMENTS

The imports take seconds, so they run while other services start. The server runs when FILE exists and another server
listens at the unix socket SOCKET.
"""

from __future__ import annotations

import gc
import importlib
import runpy
import sys
import time
from pathlib import Path

from bonseyes_dagster.execution.servers.env_file import leave_settings_alone
from bonseyes_dagster.system.sockets import SUFFIX, connect

_TIMEOUT_S = 120.0
_CONNECT_S = 5.0
# The modules to import instead of a server's main module. `runpy` runs that one, and it must not exist twice.
_PRELOADED = {
    "bonseyes_dagster.execution.servers.code_server": "dagster._grpc.server",
    "bonseyes_dagster.execution.servers.webserver": "dagster_webserver.cli",
    "dagster._daemon": "dagster._daemon.cli",
    "bonseyes_dagster.orchestration.run_server": "bonseyes_dagster.execution.processes.warm_definitions",
}


def main(argv: list[str]) -> None:
    """Import MODULE, wait for what it needs, and run it in this process."""
    split = argv.index("--")
    module, *options = argv[:split]
    _import(_PRELOADED.get(module, module))
    until_s = time.monotonic() + _TIMEOUT_S
    for needed in options[1::2]:
        while not _is_there(needed):
            if time.monotonic() > until_s:
                sys.exit(f"{needed} does not exist after {_TIMEOUT_S:.0f} s.")
            time.sleep(0.05)
    leave_settings_alone()
    sys.argv = [module, *argv[split + 1 :]]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _import(module: str) -> None:
    # Imports make many objects and little garbage; the garbage collector would take a fifth of their time.
    gc.disable()
    importlib.import_module(module)
    gc.freeze()
    gc.enable()


def _is_there(needed: str) -> bool:
    if not needed.endswith(SUFFIX):
        return Path(needed).exists()
    try:
        connect(needed, _CONNECT_S).close()
    except OSError:
        return False
    return True


if __name__ == "__main__":
    main(sys.argv[1:])
