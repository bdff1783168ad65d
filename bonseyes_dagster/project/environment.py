"""The environment variables of the shell that the processes of a project get: only those in the list below.

A shell holds secrets (AWS_*, GITHUB_TOKEN) that no tool needs, and variables that change the start of a service.
The project's `.env` sets variables that the shell does not set.
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
"""Secrets and addresses of the gateway; no container needs them, so no container gets them."""

_CHOSEN = (
    # The user, and the user's programs and files.
    *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "TMPDIR", "TEMP", "TMP", "XDG_*"),
    # Language and time.
    *("LANG", "LANGUAGE", "LC_*", "TZ"),
    # The interpreter, its libraries, and the coverage of tests.
    *("PYTHON*", "VIRTUAL_ENV", "CONDA_PREFIX", "LD_LIBRARY_PATH", "COVERAGE_*", "COV_CORE_*"),
    # Processors and GPUs.
    *("CUDA_*", "NVIDIA_*", "OMP_*", "MKL_*", "OPENBLAS_*", "NUMEXPR_*"),
    # Trusted certificates.
    *("SSL_CERT_*", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
    *("DAGSTER_*", "BONSEYES_*"),
)


def chosen_environ(environ: Mapping[str, str], passed: Iterable[str]) -> dict[str, str]:
    """Return the variables of `environ` that a service gets; `passed` are the names in BONSEYES_PASS_ENV."""
    patterns = (*_CHOSEN, *passed)
    return {
        name: value
        for name, value in environ.items()
        if any(fnmatchcase(name, pattern) for pattern in patterns) and not _is_excluded(name)
    }


def read_env_file(project: Path) -> None:
    """Set the variables of the project's `.env` that the environment of this process does not set.

    Raises SettingsError when the file cannot be read.
    """
    for name, value in compose_environ(project, {}).items():
        os.environ.setdefault(name, value)


def compose_environ(project: Path, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the variables for compose files: `environ` (by default this process's), and below it `.env`."""
    file = project / ".env"
    try:
        in_file = {name: value for name, value in dotenv_values(file).items() if value is not None}
    except UnicodeDecodeError as error:
        raise SettingsError(f"{file} is not UTF-8: {error.reason} at byte {error.start}.") from error
    except OSError as error:
        raise SettingsError(f"{file} cannot be read: {error.strerror}.") from error
    return {**in_file, **(os.environ if environ is None else environ)}


def _is_excluded(name: str) -> bool:
    # uWSGI reads UWSGI_* as options. Services and tools must not use an HTTP proxy.
    return name in GATEWAY_ONLY or name.startswith("UWSGI_") or name.lower().endswith("_proxy")
