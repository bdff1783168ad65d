"""Start a Dagster server whose imports take seconds at once, but let it run only when what it needs is there.

    python -m bonseyes_dagster.embedded.wait_for_file MODULE --after FILE --after SOCKET -- ARGUMENTS

The imports then use the time in which the others start: until FILE exists, until a server listens
at the unix socket SOCKET.
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
# Where a package does its work. A module that runs itself must not be imported before: it would exist twice.
_PRELOADED = {
    "bonseyes_dagster.execution.servers.code_server": "dagster._grpc.server",
    "bonseyes_dagster.execution.servers.webserver": "dagster_webserver.cli",
    "dagster._daemon": "dagster._daemon.cli",
    "bonseyes_dagster.orchestration.run_server": "bonseyes_dagster.execution.processes.warm_definitions",
}


def main(argv: list[str]) -> None:
    """Import MODULE, wait, become MODULE."""
    split = argv.index("--")
    module, *options = argv[:split]
    _import(_PRELOADED.get(module, module))
    until_s = time.monotonic() + _TIMEOUT_S
    for needed in options[1::2]:
        while not _is_there(needed):
            if time.monotonic() > until_s:
                sys.exit(f"{needed} is not there after {_TIMEOUT_S:.0f} s")
            time.sleep(0.05)
    leave_settings_alone()
    sys.argv = [module, *argv[split + 1 :]]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _import(module: str) -> None:
    # Imports make little garbage and many objects: looking for it among them is a fifth of their time.
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
