"""Where a service becomes processes: the uWSGI command line of a container, and the call that starts it."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

from bonseyes_dagster.errors import SettingsError
from bonseyes_dagster.settings import Settings
from bonseyes_dagster.system import sockets

__all__ = ["HELD_MARK", "serve", "uwsgi_options"]

HELD_MARK = "held"
"""The value of the log variable of that name, by which the log leaves out a request whose connection is held."""

_BUFFER_BYTES = 32768  # the request line and all headers
_SOCKET_TIMEOUT_S = 30  # a client that sends or takes nothing for so long is given up
_CHUNK_BYTES = 1 << 24  # uWSGI holds one chunk of a chunked body in memory
_BACKLOG = 1024
_LOG_RECORD_BYTES = 1 << 17  # a longer record is cut there
# What uWSGI leaves itself when it executes itself anew; without it the port would seem taken.
_KEPT_BY_UWSGI = ("UWSGI_RELOADS", "UWSGI_ORIGINAL_PROC_NAME")
_METRICS_DIR = "PROMETHEUS_MULTIPROC_DIR"


def uwsgi_options(
    app: str,
    bind: str,
    *,
    settings: Settings,
    mule: str | None = None,
    processes: int | None = None,
    threads: int | None = None,
    stop_s: int = 3,
    mule_stop_s: int = 15,
) -> list[str]:
    """Return uWSGI's options that serve `app` ("module:attribute") at `bind` ("HOST:PORT", or a socket's path).

    `mule` ("module:function" or a .py file) runs in one more process, where `import uwsgi` works too. On SIGTERM
    the workers end at once and are killed after `stop_s`; the mule gets SIGINT and is killed after `mule_stop_s`.
    The app is imported once, before the fork: it must open no file that it shares and start no thread until asked.
    """
    host, _, port = bind.rpartition(":")
    is_socket = bind.startswith("/") and ":" not in bind
    if not is_socket and (not host or not port.isdigit()):
        raise SettingsError(
            f"cannot bind {bind!r}: HOST:PORT is needed, such as 127.0.0.1:8080, "
            "or the absolute path of a unix socket, without a colon"
        )
    options = {
        "http-socket": bind,
        "module": app,
        "processes": processes or settings.processes,
        "threads": threads or settings.threads,
        "listen": min(_BACKLOG, _longest_backlog()),
        "buffer-size": _BUFFER_BYTES,
        "socket-timeout": _SOCKET_TIMEOUT_S,
        "chunked-input-timeout": _SOCKET_TIMEOUT_S,
        "chunked-input-limit": _CHUNK_BYTES,
        "offload-threads": 1,
        "worker-reload-mercy": stop_s,
        "mule-reload-mercy": mule_stop_s,
        # in a container of its own, or on a machine that has only root, it says this at every step of every start
        "log-drain": "you are running uWSGI as root|" + f" {HELD_MARK}$",
        "log-master-bufsize": _LOG_RECORD_BYTES,
        "log-format": '%(addr) "%(method) %(uri)" %(status) %(rsize)B %(msecs)ms %(held)',
        # uWSGI puts the base interpreter there, which does not have the virtual environment's packages
        "py-executable": sys.executable,
        # what it becomes anew on SIGHUP, for the same reason
        "binary-path": sys.executable,
    }
    if mule is not None:
        options["mule"] = mule
    if is_socket:
        options["chmod-socket"] = 600
    return [*_flags(settings), *(f"--{key}={value}" for key, value in options.items())]


def _flags(settings: Settings) -> list[str]:
    flags = [
        "--master",
        "--enable-threads",
        "--single-interpreter",
        "--need-app",
        "--die-on-term",
        "--no-orphans",
        "--vacuum",
        "--thunder-lock",
        # end workers by _exit: Python's finalisation hangs while other threads still hold requests
        "--skip-atexit",
        "--ignore-sigpipe",
        "--ignore-write-errors",
        # the master writes what all processes log, which is what lets it leave lines out
        "--log-master",
        "--disable-write-exception",
        # a connection carries one request: see connection.py
        "--add-header=Connection: close",
    ]
    if settings.log_level != "DEBUG":
        flags += ["--disable-logging", "--log-5xx", "--log-slow=120000"]
    return flags


def _longest_backlog() -> int:
    try:
        return int(Path("/proc/sys/net/core/somaxconn").read_text())
    except (OSError, ValueError):
        return 100


def serve(
    app: str,
    bind: str,
    *,
    settings: Settings,
    mule: str | None = None,
    processes: int | None = None,
    threads: int | None = None,
    stop_s: int = 3,
    mule_stop_s: int = 15,
) -> NoReturn:
    """Become the server, see `uwsgi_options`; what this process has imported so far, the server has."""
    options = uwsgi_options(
        app,
        bind,
        settings=settings,
        mule=mule,
        processes=processes,
        threads=threads,
        stop_s=stop_s,
        mule_stop_s=mule_stop_s,
    )
    if bind.startswith("/"):
        sockets.claim(Path(bind))
    folder = _metrics_folder()
    options.append(f"--exec-as-user-atexit=rm -rf {shlex.quote(folder)}")
    os.environ[_METRICS_DIR] = folder
    for name in [name for name in os.environ if name.startswith("UWSGI_") and name not in _KEPT_BY_UWSGI]:
        del os.environ[name]  # uWSGI would take it as one more option
    import pyuwsgi  # here, for it prints and changes what `import uwsgi` finds

    sys.stdout.flush()
    sys.stderr.flush()
    pyuwsgi.run(options)
    raise SystemExit  # it does not return


def _metrics_folder() -> str:
    """Make the folder in which the processes add up their metrics, and remove what killed servers left."""
    # the process id tells whose folder it is
    prefix = f"bonseyes-metrics-{os.getpid()}-"
    for folder in Path(tempfile.gettempdir()).glob("bonseyes-metrics-*"):
        owner = folder.name.split("-")[2]
        is_alive = owner != str(os.getpid()) and Path("/proc", owner).exists()
        with contextlib.suppress(FileNotFoundError):  # another server that starts now may be faster
            if not is_alive and folder.lstat().st_uid == os.getuid():
                shutil.rmtree(folder, ignore_errors=True)
    return tempfile.mkdtemp(prefix=prefix)
