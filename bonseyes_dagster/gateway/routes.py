"""The table of the gateway's routes, for the embedded gateway and for nginx."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote, unquote, urlsplit

from bonseyes_dagster.errors import BadRequestError, NotFoundError
from bonseyes_dagster.urls import is_name

__all__ = ["ANY_CONTAINER", "DAGSTER", "ROUTES", "SAFE_PATH", "Route", "Target", "match", "rewrite_location"]

ANY_CONTAINER = "{container}"
# Dagster's webserver is not a container. It has its own setting, so no tool can reach it by a container's name.
DAGSTER = "{dagster}"
# A path and query of printable characters that a browser does not resolve to another URL. It has no host, no `.` or
# `..` segments, encoded or not, and no backslash, which browsers read as a slash.
SAFE_PATH = r"/(?!/|(?:.*/)?(?:\.|%2e){1,2}(?:[/?#]|$))[!-\[\]-~]*"


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One published prefix.

    `prefix` has no trailing slash. `upstream` is a container's name, DAGSTER, or ANY_CONTAINER if the prefix holds it.
    `strips`: the upstream gets the path without the prefix, and the prefix in `X-Forwarded-Prefix`.
    `is_page`: the bare prefix redirects to the prefix with a slash, because the page's relative links need it.
    `serves_pages`: the upstream serves pages of this project, each with the Content-Security-Policy that it needs.
    Answers of all other routes are data: no browser may run them, and they do not redirect elsewhere.
    `executes`: lower-case beginnings of paths where the upstream executes the URL's query, whatever the method; the
    gateway refuses such queries unless they come by POST.
    `keeps_alive`: idle connections cost the upstream nothing; in a threaded server, each would hold a thread.
    """

    prefix: str
    upstream: str
    strips: bool
    is_page: bool = False
    websockets: bool = False
    keeps_alive: bool = False
    serves_pages: bool = False
    executes: tuple[str, ...] = ()


# The first match counts. The gateway answers /login, /logout and /healthz before it looks at this table.
ROUTES: tuple[Route, ...] = (
    Route(
        prefix="/dagster",
        upstream=DAGSTER,
        strips=False,
        is_page=True,
        websockets=True,
        keeps_alive=True,
        serves_pages=True,
        # GraphQL executes mutations, too.
        executes=("/dagster/graphql",),
    ),
    Route(prefix="/containers/visualization", upstream="visualization", strips=True, is_page=True, serves_pages=True),
    Route(prefix=f"/containers/{ANY_CONTAINER}", upstream=ANY_CONTAINER, strips=True),
    Route(prefix="", upstream="dashboard", strips=False, serves_pages=True),
)


@dataclass(frozen=True, slots=True)
class Target:
    """The target of one request: `path` is the raw path for the upstream, `prefix` is the route's prefix."""

    route: Route
    container: str
    path: str
    prefix: str
    redirect: str | None = None

    @property
    def name(self) -> str:
        """Return the name of the container or of Dagster, for messages."""
        return self.container.strip("{}")

    @property
    def plain_path(self) -> str:
        """Return the path as the most lenient upstream could read it: checks must not miss any spelling."""
        decoded = unquote(unquote(self.path, errors="replace"), errors="replace")
        return re.sub(r"[/\\]+", "/", decoded).lower()

    @property
    def executes(self) -> bool:
        """Tell whether the upstream would execute a query of this URL."""
        return self.plain_path.startswith(self.route.executes)


def match(raw_path: str) -> Target:
    """Return the target of a raw request path (percent-encoded, without its query).

    Raises NotFoundError for a path with `.` or `..` segments, or with an invalid container name.
    """
    _check_path(raw_path)
    for route in ROUTES:
        target = _match(route, raw_path)
        if target is not None:
            return target
    raise NotFoundError(f"There is nothing at {raw_path}.")  # pragma: no cover - the last route takes everything


def _check_path(raw_path: str) -> None:
    if not raw_path.startswith("/"):
        raise BadRequestError("The request target must be a path that begins with a slash.")
    # Decoded once, as every upstream does: the dots and slashes may be written %2e and %2f.
    decoded = unquote(raw_path, errors="replace").replace("\\", "/")
    if any(segment in (".", "..") for segment in decoded.split("/")):
        raise NotFoundError("A path must not hold . or .. segments.")


def _match(route: Route, raw_path: str) -> Target | None:
    parent, _, last = route.prefix.rpartition("/")
    if last == ANY_CONTAINER:
        return _match_container(route, parent, raw_path)
    if raw_path == route.prefix and route.is_page:
        return Target(route, route.upstream, raw_path, route.prefix, redirect=f"{route.prefix}/")
    if raw_path != route.prefix and not raw_path.startswith(f"{route.prefix}/"):
        return None
    path = raw_path[len(route.prefix) :] if route.strips else raw_path
    return Target(route, route.upstream, path or "/", route.prefix)


def _match_container(route: Route, parent: str, raw_path: str) -> Target | None:
    if not raw_path.startswith(f"{parent}/"):
        return None
    segment, slash, rest = raw_path[len(parent) + 1 :].partition("/")
    if not segment and not rest:
        return None  # `/containers/` is the dashboard's list
    name = unquote(segment)
    if not is_name(name):
        raise NotFoundError(f"There is no container {name!r}.")
    return Target(route, name, slash + rest or "/", f"{parent}/{quote(name, safe='')}")


def rewrite_location(location: str, target: Target, base_url: str, host: str) -> str | None:
    """Return a `Location` that leads back through the gateway, also if the upstream sent its own address.

    `host` is the Host header of the client. The result is None for a route of data whose `Location` leads elsewhere,
    for example to another upstream: a browser that follows it sends the request as a page of this site.
    """
    location = _prefixed(location, target, base_url)
    own = f"(?:https?://{re.escape(host)})?{re.escape(target.prefix)}{SAFE_PATH}"
    return location if target.route.serves_pages or re.fullmatch(own, location, re.IGNORECASE) else None


def _prefixed(location: str, target: Target, base_url: str) -> str:
    try:
        parts = urlsplit(location)
    except ValueError:
        return location
    if parts.scheme or parts.netloc:
        own_hosts = {urlsplit(base_url).netloc, target.container}
        if parts.netloc not in own_hosts:
            return location
        location = parts._replace(scheme="", netloc="").geturl() or "/"
    if not target.route.strips or not location.startswith("/"):
        return location
    if location == target.prefix or location.startswith(f"{target.prefix}/"):
        return location
    return target.prefix + location
