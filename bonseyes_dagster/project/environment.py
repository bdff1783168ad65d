"""Which environment variables of the shell the processes of a project get: the ones chosen here, and no others.

A shell holds secrets (AWS_*, GITHUB_TOKEN) that no tool needs, and variables that change how a service starts.
Below the shell lies the project's `.env`.
`services.py`, `preparation.py` and the commands call it. docs/operations.md has the list.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path

from dotenv import dotenv_values

from bonseyes_dagster.errors import SettingsError

__all__ = ["GATEWAY_ONLY", "chosen_environ", "compose_environ", "read_env_file"]

GATEWAY_ONLY = ("BONSEYES_TOKEN", "BONSEYES_HOST", "BONSEYES_ALLOWED_HOSTS")
"""Secrets and addresses of the gateway: no container needs them, so none gets them."""

_CHOSEN = (
    # Who the user is, and where that user's programs and files lie.
    *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "TMPDIR", "TEMP", "TMP", "XDG_*"),
    # Language and time.
    *("LANG", "LANGUAGE", "LC_*", "TZ"),
    # The interpreter, its libraries, and what measures a test's coverage.
    *("PYTHON*", "VIRTUAL_ENV", "CONDA_PREFIX", "LD_LIBRARY_PATH", "COVERAGE_*", "COV_CORE_*"),
    # Processors and GPUs.
    *("CUDA_*", "NVIDIA_*", "OMP_*", "MKL_*", "OPENBLAS_*", "NUMEXPR_*"),
    # Certificates that are trusted.
    *("SSL_CERT_*", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
    *("DAGSTER_*", "BONSEYES_*"),
)


def chosen_environ(environ: Mapping[str, str], passed: Iterable[str]) -> dict[str, str]:
    """Return the variables of `environ` that a service gets; `passed` are the names that BONSEYES_PASS_ENV adds."""
    patterns = (*_CHOSEN, *passed)
    return {
        name: value
        for name, value in environ.items()
        if any(fnmatchcase(name, pattern) for pattern in patterns) and not _is_kept_out(name)
    }


def read_env_file(project: Path) -> None:
    """Set what `.env` in the project's folder sets, unless the environment of this process sets it already.

    Raises SettingsError when the file cannot be read.
    """
    for name, value in compose_environ(project, {}).items():
        os.environ.setdefault(name, value)


def compose_environ(project: Path, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the variables that compose files see: `environ` (this process's by default), and below it `.env`."""
    file = project / ".env"
    try:
        in_file = {name: value for name, value in dotenv_values(file).items() if value is not None}
    except UnicodeDecodeError as error:
        raise SettingsError(f"{file} is not UTF-8: {error.reason} at byte {error.start}.") from error
    except OSError as error:
        raise SettingsError(f"{file} cannot be read: {error.strerror}.") from error
    return {**in_file, **(os.environ if environ is None else environ)}


def _is_kept_out(name: str) -> bool:
    # uWSGI takes UWSGI_* as options. Services reach one another without a proxy; tools fetch without one, too.
    return name in GATEWAY_ONLY or name.startswith("UWSGI_") or name.lower().endswith("_proxy")
