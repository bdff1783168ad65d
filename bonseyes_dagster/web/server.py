"""Build uWSGI's command line for a container, and start uWSGI in this process."""

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
"""The value of the log variable `held` for a request whose connection the holder has; the log leaves it out."""

_BUFFER_BYTES = 32768  # the request line and all headers
_SOCKET_TIMEOUT_S = 30  # uWSGI closes a connection on which the client sends and reads nothing for so long
_CHUNK_BYTES = 1 << 24  # uWSGI holds one chunk of a chunked body in memory
_BACKLOG = 1024
_LOG_RECORD_BYTES = 1 << 17  # uWSGI cuts longer records
# uWSGI sets these variables when it executes itself again. Without them, it would find its port in use.
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
    """Return uWSGI's options that serve `app` ("module:attribute") at `bind` ("HOST:PORT" or the path of a socket).

    `mule` ("module:function" or a .py file) runs in a further process, where `import uwsgi` works, too. On SIGTERM,
    the workers end at once; uWSGI kills them after `stop_s`. The mule gets SIGINT; uWSGI kills it after `mule_stop_s`.
    uWSGI imports the application once, before the fork. So the import must not start threads or open files that the
    workers would share.
    """
    host, _, port = bind.rpartition(":")
    is_socket = bind.startswith("/") and ":" not in bind
    if not is_socket and (not host or not port.isdigit()):
        raise SettingsError(
            f"The server cannot bind {bind!r}; the address must be HOST:PORT, such as 127.0.0.1:8080, "
            "or the absolute path of a unix socket, without a colon."
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
        # Where only root exists, for example in a container, uWSGI logs this warning several times at each start.
        "log-drain": "you are running uWSGI as root|" + f" {HELD_MARK}$",
        "log-master-bufsize": _LOG_RECORD_BYTES,
        "log-format": '%(addr) "%(method) %(uri)" %(status) %(rsize)B %(msecs)ms %(held)',
        # By default, uWSGI uses the base interpreter, which lacks the packages of the virtual environment.
        "py-executable": sys.executable,
        # The program that uWSGI executes on SIGHUP, for the same reason.
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
        # End workers by _exit: Python's finalisation hangs while other threads still handle requests.
        "--skip-atexit",
        "--ignore-sigpipe",
        "--ignore-write-errors",
        # The master writes the log of all processes. Only so can it leave out lines (log-drain).
        "--log-master",
        "--disable-write-exception",
        # Each connection carries one request; see connection.py.
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
    """Become the server, with the options of `uwsgi_options`; modules that are already imported stay imported."""
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
        del os.environ[name]  # uWSGI would read it as an option
    import pyuwsgi  # not at the top: it prints, and changes the result of `import uwsgi`

    sys.stdout.flush()
    sys.stderr.flush()
    pyuwsgi.run(options)
    raise SystemExit  # never reached: run() does not return


def _metrics_folder() -> str:
    """Make the folder for the metrics of all processes, and remove the folders of killed servers."""
    # The name contains the process id of the owner.
    prefix = f"bonseyes-metrics-{os.getpid()}-"
    for folder in Path(tempfile.gettempdir()).glob("bonseyes-metrics-*"):
        owner = folder.name.split("-")[2]
        is_alive = owner != str(os.getpid()) and Path("/proc", owner).exists()
        with contextlib.suppress(FileNotFoundError):  # another starting server may have removed it
            if not is_alive and folder.lstat().st_uid == os.getuid():
                shutil.rmtree(folder, ignore_errors=True)
    return tempfile.mkdtemp(prefix=prefix)
