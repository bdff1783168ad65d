"""`python -m bonseyes_dagster.gateway.nginx docker-compose.yml` prints nginx's configuration for this project.

nginx forwards requests and streams answers. For each request it asks the access service (`access_service.py`), which
has the access rules and the table of routes. This module takes the containers from the Compose file. The rules for
headers come from the tables of the embedded gateway (`headers.py`).
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import urlsplit

from bonseyes_dagster.errors import (
    REQUEST_ID,
    BadRequestError,
    BonseyesError,
    MethodNotAllowedError,
    SettingsError,
    UnavailableError,
)
from bonseyes_dagster.formats.yaml_file import read_yaml
from bonseyes_dagster.gateway.access_service import ANSWERS, CONTAINERS, QUESTION, REQUEST
from bonseyes_dagster.gateway.forward import HEADER_WAIT_S, STALL_S
from bonseyes_dagster.gateway.headers import (
    BROWSER_COMMANDS,
    CONTENT_POLICY,
    CORS,
    FORWARDED,
    HOP_BY_HOP,
    PAGE_POLICY,
    SECURITY_HEADERS,
)
from bonseyes_dagster.gateway.routes import DAGSTER, ROUTES, SAFE_PATH
from bonseyes_dagster.gateway.server import IDLE_S
from bonseyes_dagster.gateway.upstreams import CONNECT_S
from bonseyes_dagster.settings import Settings
from bonseyes_dagster.urls import is_name

__all__ = ["Nginx", "read_upstreams", "render"]

DOCKER_RESOLVER = "127.0.0.11"
# The longest silence on a websocket, or on a log that a client follows.
SILENCE_S = 24 * 3600
_LOGS = "^/containers/[^/]+/(artifacts|runs)/[^/]+/log/?$"
# The template has a map for each of these headers.
_COMPUTED = {
    "Content-Security-Policy": "$gateway_policy",
    "Content-Disposition": "$gateway_disposition",
    "Location": "$gateway_location",
}
# The contract's errors for requests that nginx itself refuses.
_MALFORMED = BadRequestError("This is not valid HTTP: the first line or a header is wrong or too long.")
_METHODS = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
_METHOD = MethodNotAllowedError(f"The gateway refuses TRACE and CONNECT; it takes {_METHODS}.")
_DOWN = UnavailableError("$gateway_name is down or starting, or closed the connection before it answered; try again.")
_SILENT = UnavailableError("$gateway_name did not answer in time; try again.")
_NO_ACCESS = UnavailableError("The access service is down, so the gateway refuses all requests; try again.")
_ERRORS: Mapping[str, tuple[tuple[int, ...], BonseyesError]] = {
    "malformed": ((400, 414, 494, 501, 505), _MALFORMED),
    "method": ((405,), _METHOD),
    "down": ((502,), _DOWN),
    "silent": ((504,), _SILENT),
    "access": ((), _NO_ACCESS),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Nginx:
    """The settings of one nginx.

    `upstreams` maps containers and DAGSTER to base URLs; `access` is the base URL of the access service. Each entry of
    `listen` is HOST:PORT or PORT. nginx answers health checks at `health`. `folder` is writable. `resolver` is the
    address of a DNS server, or empty if the URLs have IP addresses only.
    """

    upstreams: Mapping[str, str]
    access: str
    listen: tuple[str, ...]
    health: str = "127.0.0.1:8081"
    folder: str = "/tmp"  # noqa: S108 - the only writable folder of a container with a read-only root
    resolver: str = DOCKER_RESOLVER
    idle_s: float = IDLE_S
    stall_s: float = STALL_S
    answer_s: float = HEADER_WAIT_S


def render(nginx: Nginx) -> str:
    """Return the whole nginx.conf."""
    template = (Path(__file__).parent / "nginx.conf").read_text(encoding="utf-8")
    values = {**_addresses(nginx), **_headers(nginx), **_failures()}
    return "".join(_fill(line, values) for line in template.splitlines(keepends=True))


class _Line(Template):
    delimiter = "%"


def _fill(line: str, values: Mapping[str, str]) -> str:
    indent = line[: len(line) - len(line.lstrip())]
    return _Line(line).substitute({name: value.replace("\n", f"\n{indent}") for name, value in values.items()})


def _addresses(nginx: Nginx) -> dict[str, str]:
    # In Docker, a restarted container gets a new address. Another container may get its old address.
    resolver = f"resolver {nginx.resolver} valid=1s ipv6=off;\nresolver_timeout 2s;"
    return {
        "folder": nginx.folder,
        "resolver": resolver if nginx.resolver else "",
        "idle": f"{nginx.idle_s:g}s",
        "stall": f"{nginx.stall_s:g}s",
        "answer": f"{nginx.answer_s:g}s",
        "connect": f"{CONNECT_S:g}s",
        "listen": _lines(f"listen {each};" for each in nginx.listen),
        "health": nginx.health,
        "access": nginx.access.rstrip("/"),
        "upstreams": _lines(f"{_quote(name)} {_quote(url.rstrip('/'))};" for name, url in nginx.upstreams.items()),
        "safe_location": _quote(rf"~*^\S+ (\S+) (\S+) (?:https?://\2)?\1{SAFE_PATH}$"),
        "locations": _lines(_relative_location(name, url) for name, url in nginx.upstreams.items()),
        "silent_locations": _lines(map(_silent_location, [*_websocket_locations(), f"~ {_LOGS}"])),
    }


def _relative_location(name: str, base_url: str) -> str:
    hosts = "|".join(map(re.escape, sorted({name, urlsplit(base_url).netloc})))
    address = f"~^{re.escape(name)} (?:https?:)?//(?:{hosts})"
    return f"{_quote(f'{address}$')} /;\n{_quote(f'{address}(?<gateway_rest>/.*)$')} $gateway_rest;"


def _websocket_locations() -> Iterator[str]:
    return (route.prefix for route in ROUTES if route.websockets)


def _silent_location(match: str) -> str:
    return f"location {match} {{\n  proxy_read_timeout {SILENCE_S}s;\n  proxy_pass $gateway_upstream$gateway_path;\n}}"


def _headers(nginx: Nginx) -> dict[str, str]:
    answers = (f"auth_request_set $gateway_{name.lower()} $upstream_http_x_gateway_{name.lower()};" for name in ANSWERS)
    dropped = HOP_BY_HOP | FORWARDED | {"expect"}
    # nginx sets these three headers itself, for its connection to the upstream.
    dropped -= {"connection", "transfer-encoding", "upgrade"}
    forwarded = {
        "X-Request-Id": "$gateway_request_id",
        "X-Forwarded-For": "$proxy_add_x_forwarded_for",
        "X-Forwarded-Host": "$http_host",
        "X-Forwarded-Proto": "$gateway_scheme",
    }
    to_upstream = {
        "Connection": "$gateway_connection",
        "Upgrade": "$gateway_upgrade",
        "Cookie": "$gateway_cookie",
        "Authorization": "$gateway_authorization",
        "X-Forwarded-Prefix": "$gateway_prefix",
    }
    to_access = {
        "Host": "$http_host",
        "Upgrade": "$http_upgrade",
        REQUEST: "$request",
        CONTAINERS: " ".join(name for name in nginx.upstreams if name != DAGSTER),
    }
    nothing = {name: "" for name in sorted(dropped) if name not in map(str.lower, [*forwarded, *to_upstream])}
    return {
        "request_id": _quote(f"~^{REQUEST_ID.pattern}$"),
        "page_policy": _quote(PAGE_POLICY),
        "content_policy": _quote(CONTENT_POLICY),
        "question": QUESTION,
        "answers": _lines(answers),
        "upstream_headers": _set("proxy_set_header", {**nothing, **forwarded, **to_upstream}),
        "question_headers": _set("proxy_set_header", {**nothing, **forwarded, **to_access}),
        "hidden_headers": _lines(f"proxy_hide_header {name};" for name in _hidden()),
        "added_headers": _set("add_header", {**SECURITY_HEADERS, **_COMPUTED}, " always"),
    }


def _hidden() -> Iterable[str]:
    # The client needs the Upgrade header at the beginning of a websocket.
    return sorted([*_COMPUTED, *SECURITY_HEADERS, *CORS, *BROWSER_COMMANDS, *(HOP_BY_HOP - {"upgrade"})], key=str.lower)


def _failures() -> dict[str, str]:
    pages = (
        f"error_page {' '.join(map(str, statuses))} = /./error/{name};"
        for name, (statuses, _) in _ERRORS.items()
        if statuses
    )
    locations = (_error_location(name, error) for name, (_, error) in _ERRORS.items())
    return {"error_pages": _lines(pages), "error_locations": _lines(locations)}


def _error_location(name: str, error: BonseyesError) -> str:
    return (
        f"location = /./error/{name} {{\n"
        "  internal;\n"
        "  set $gateway_own_id $gateway_request_id;\n"
        "  set $gateway_own_caching no-store;\n"
        f"  set $gateway_retry_after {_quote('1' if error.http_status == 503 else '')};\n"
        f"  set $gateway_own_allow {_quote(_METHODS if error.http_status == 405 else '')};\n"
        f"  return {error.http_status} {_quote(json.dumps(error.to_json('$gateway_request_id')))};\n"
        "}"
    )


def _set(directive: str, headers: Mapping[str, str], ending: str = "") -> str:
    return _lines(f"{directive} {name} {_quote(value)}{ending};" for name, value in headers.items())


def _quote(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _lines(lines: Iterable[str]) -> str:
    return "\n".join(lines)


def read_upstreams(file: Path) -> dict[str, str]:
    """Return the base URL of each container in a Compose file by its name, and of Dagster's webserver by DAGSTER.

    A service with BONSEYES_CONTAINER in its environment is a container.
    """
    services = _services(file)
    upstreams = {
        name: f"http://{_host(name, service)}"
        for name, service in services.items()
        if is_name(name) and "BONSEYES_CONTAINER" in _environment(service)
    }
    dagster = urlsplit(Settings().dagster_url)
    host = dagster.hostname or ""
    return upstreams | {DAGSTER: f"http://{_host(host, services.get(host))}:{dagster.port}"}


def _services(file: Path) -> dict[str, Any]:
    try:
        services = read_yaml(file)["services"]
    except (FileNotFoundError, KeyError, TypeError) as error:
        raise SettingsError(f"{file} cannot be read as a Compose file: {error}") from error
    if not isinstance(services, dict) or not all(isinstance(service, dict) for service in services.values()):
        raise SettingsError(f"{file}: 'services' must map names to services.")
    return services


def _environment(service: Mapping[str, Any]) -> Iterable[str]:
    entries = service.get("environment") or ()
    return entries if isinstance(entries, Mapping) else [str(entry).partition("=")[0] for entry in entries]


def _host(name: str, service: Mapping[str, Any] | None) -> str:
    """Return the host name of a service: its alias that begins with `NAME.`, else its name.

    A service has such an alias only in the network where it listens.
    """
    networks = (service or {}).get("networks") or ()
    aliases = [
        alias
        for network in (networks.values() if isinstance(networks, Mapping) else ())
        for alias in (network or {}).get("aliases") or ()
    ]
    return next((alias for alias in aliases if str(alias).startswith(f"{name}.")), name)


def main(argv: list[str] | None = None) -> int:
    """Print the configuration; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bonseyes_dagster.gateway.nginx", description=__doc__)
    parser.add_argument("compose", type=Path, help="the Compose file with the containers to publish")
    parser.add_argument("--listen", nargs="+", default=["8080"], metavar="[HOST:]PORT", help="8080 by default")
    parser.add_argument("--access", default="http://access:8080", help="URL of the access service")
    arguments = parser.parse_args(argv)
    try:
        upstreams = read_upstreams(arguments.compose)
    except SettingsError as error:
        sys.stderr.write(f"nginx: {error.message}\n")
        return 1
    listen = tuple(arguments.listen)
    sys.stdout.write(render(Nginx(upstreams=upstreams, access=arguments.access, listen=listen)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
