"""The settings of all processes, from environment variables; docs/operations.md documents them.

Each process reads them once, at its start, and ends with an error if one is wrong.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bonseyes_dagster.errors import SettingsError

__all__ = ["Settings"]

_PATTERN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\*?")


def _number(minimum: int, maximum: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        value = int(text)
        if not minimum <= value <= maximum:
            raise ValueError(f"it must be between {minimum} and {maximum}")
        return value

    return parse


def _words(text: str) -> tuple[str, ...]:
    return tuple(word for word in text.replace(",", " ").split() if word)


def _patterns(text: str) -> tuple[str, ...]:
    patterns = _words(text)
    for pattern in patterns:
        if not _PATTERN.fullmatch(pattern):
            raise ValueError(f"{pattern!r} must be the name of a variable, or the beginning of names followed by `*`")
        if pattern.startswith("UWSGI_") or pattern.rstrip("*").lower().endswith("_proxy"):
            raise ValueError(f"{pattern!r} is not allowed: it would change how the services start or connect")
    return patterns


def _origin(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
        raise ValueError("it must be http://HOST, http://HOST:PORT or the same with https")
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError("it must have no path: the gateway answers at the root of its host")
    return text


def _path(text: str) -> Path:
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError:
        raise ValueError("~ must be the home folder of a user that exists") from None


def _url(text: str) -> str:
    urlsplit(text)
    return text


def _paths(text: str) -> tuple[Path, ...]:
    return tuple(_path(part) for part in text.split(os.pathsep) if part)


def _choice(*choices: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError(f"it must be one of {', '.join(choices)}")
        return text

    return parse


def _setting(name: str, parse: Callable[[str], Any], default: Any, text: str) -> Any:
    return field(default=default, metadata={"name": name, "parse": parse, "text": text})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The value of each environment variable that a process of this project reads; immutable."""

    # This process
    container: str = _setting("BONSEYES_CONTAINER", str, "", "the container's name; the tool's name by default")
    tool: Path | None = _setting("BONSEYES_TOOL", _path, None, "the folder with the tool's tool.yml")
    pipeline: str = _setting("BONSEYES_PIPELINE", str, "", "the pipeline that a pipeline container serves")
    project: Path | None = _setting(
        "BONSEYES_PROJECT", _path, None, "the project's folder, with definitions.py; the working directory by default"
    )
    volume: Path | None = _setting("BONSEYES_VOLUME", _path, None, "the folder for all persistent files of a container")
    volumes: Path | None = _setting(
        "BONSEYES_VOLUMES",
        _path,
        None,
        "the folder with the volumes of the project's containers, by name: inputs become hard links to files there",
    )

    # Addresses of other processes
    url: str = _setting(
        "BONSEYES_URL", _origin, "", "the gateway's URL for clients; http://127.0.0.1:BONSEYES_PORT by default"
    )
    addresses: Path | None = _setting(
        "BONSEYES_ADDRESSES", _path, None, "JSON file {container: base URL}; without it, a container is http://NAME"
    )
    outbound: tuple[str, ...] = _setting(
        "BONSEYES_OUTBOUND", _words, (), "hosts from which tools may fetch URLs, beside the project's containers"
    )

    # Files that runs may read
    files: tuple[Path, ...] = _setting(
        "BONSEYES_FILES",
        _paths,
        (),
        "folders whose files the config of a run may name, beside the inbox; the project's folder by default",
    )
    inbox: Path | None = _setting("BONSEYES_INBOX", _path, None, "the folder whose archives start runs")

    # Variables of the shell that a project's processes get
    pass_env: tuple[str, ...] = _setting(
        "BONSEYES_PASS_ENV",
        _patterns,
        (),
        "further variables of the shell for the project's processes: names, or beginnings of names followed by `*`",
    )

    # The gateway
    dagster_url: str = _setting(
        "BONSEYES_DAGSTER_URL", _url, "http://dagster-webserver:3000", "the URL of Dagster's webserver for the gateway"
    )
    host: str = _setting("BONSEYES_HOST", str, "127.0.0.1", "address that the gateway binds")
    port: int = _setting("BONSEYES_PORT", _number(1, 65535), 8000, "port that the gateway binds")
    token: str = _setting("BONSEYES_TOKEN", str, "", "secret that every request to the gateway must carry")
    allowed_hosts: tuple[str, ...] = _setting(
        "BONSEYES_ALLOWED_HOSTS", _words, (), "further Host names that the gateway, or a server with a port, answers to"
    )

    # Dagster in docker
    run_launcher: str = _setting(
        "BONSEYES_RUN_LAUNCHER",
        _choice("warm", "docker"),
        "warm",
        "the process of a run: `warm`, a fork of the run server, or `docker`, a container for each run",
    )
    postgres: str = _setting(
        "BONSEYES_POSTGRES", _url, "", "database of Dagster's runs, postgresql://USER@HOST/DATABASE; SQLite by default"
    )
    postgres_password_file: Path | None = _setting(
        "BONSEYES_POSTGRES_PASSWORD_FILE", _path, None, "file with the database's password"
    )
    compose_project: str = _setting(
        "BONSEYES_COMPOSE_PROJECT", str, "", "the Compose project with the networks and volumes for containers of runs"
    )
    run_image: str = _setting("BONSEYES_RUN_IMAGE", str, "bonseyes/project", "image of the containers of runs")

    # Limits
    processes: int = _setting("BONSEYES_PROCESSES", _number(1, 64), 2, "server processes of a container")
    threads: int = _setting("BONSEYES_THREADS", _number(1, 1024), 128, "threads of each server process")
    queue_limit: int = _setting("BONSEYES_QUEUE_LIMIT", _number(1, 10**6), 10_000, "artifacts that may wait in a queue")
    upload_limit_bytes: int = _setting(
        "BONSEYES_UPLOAD_LIMIT_BYTES", _number(1, 2**50), 2**36, "size limit of a request body"
    )
    files_limit: int = _setting(
        "BONSEYES_FILES_LIMIT", _number(1, 10**7), 250_000, "files and folders that one artifact may have"
    )
    log_limit_bytes: int = _setting(
        "BONSEYES_LOG_LIMIT_BYTES", _number(1, 2**50), 2**28, "size limit of an artifact's log; its end is always kept"
    )
    disk_reserve_bytes: int = _setting(
        "BONSEYES_DISK_RESERVE_BYTES",
        _number(0, 2**50),
        2**26,
        "free space on the volume that new artifacts must leave",
    )

    # The log
    log_level: str = _setting(
        "BONSEYES_LOG_LEVEL", _choice("DEBUG", "INFO", "WARNING", "ERROR"), "INFO", "lowest level of records in the log"
    )

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read the environment; raise SettingsError that names every wrong variable."""
        environ = os.environ if environ is None else environ
        values: dict[str, Any] = {}
        wrong: dict[str, str] = {}
        for f in fields(cls):
            text = environ.get(f.metadata["name"], "")
            if not text:
                continue
            try:
                values[f.name] = f.metadata["parse"](text)
            except ValueError as error:
                wrong[f.metadata["name"]] = f"{text!r}: {error}"
        if wrong:
            raise SettingsError("; ".join(f"{name}={why}" for name, why in wrong.items()) + ".", detail=wrong)
        return cls(**values)

    @property
    def gateway_url(self) -> str:
        """Return the gateway's URL for clients, without a trailing slash."""
        return (self.url or f"http://127.0.0.1:{self.port}").rstrip("/")
