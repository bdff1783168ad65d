"""The one table of what the gateway publishes and from where, for the embedded gateway and for nginx."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote, unquote, urlsplit

from bonseyes_dagster.errors import BadRequestError, NotFoundError
from bonseyes_dagster.urls import is_name

__all__ = ["ANY_CONTAINER", "DAGSTER", "OUR_LOCATION", "ROUTES", "Route", "Target", "match", "rewrite_location"]

ANY_CONTAINER = "{container}"
# Not a container: it is found by a setting of its own, so that no tool can be pointed at it by a name.
DAGSTER = "{dagster}"
# A path of printable characters, the query with it, that browsers do not resolve to something else: no host, no dots to
# climb by, encoded or not, and no backslash, which is a slash to them.
OUR_LOCATION = r"/(?!/|(?:.*/)?(?:\.|%2e){1,2}(?:[/?#]|$))[!-\[\]-~]*"


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One published prefix.

    `prefix` has no trailing slash; `upstream` is a container's name, ANY_CONTAINER (the segment that stands for it in
    the prefix) or DAGSTER. `strips`: the upstream sees the path without the prefix, and gets it in
    `X-Forwarded-Prefix`. `is_page`: relative links below need the slash, so the bare prefix redirects to it.
    `serves_pages`: its pages are ours, and tell by their own Content-Security-Policy what they need; the answers of
    all others are data, which no browser may run, and which lead nowhere else.
    `executes`: beginnings of paths, in lower case, where a query is executed, with any method: none may come by GET.
    `keeps_alive`: the upstream's idle connections cost it nothing; in a threaded server each would hold a thread.
    """

    prefix: str
    upstream: str
    strips: bool
    is_page: bool = False
    websockets: bool = False
    keeps_alive: bool = False
    serves_pages: bool = False
    executes: tuple[str, ...] = ()


# First match wins. /login, /logout and /healthz are the gateway's own and come before all of these.
ROUTES: tuple[Route, ...] = (
    Route(
        prefix="/dagster",
        upstream=DAGSTER,
        strips=False,
        is_page=True,
        websockets=True,
        keeps_alive=True,
        serves_pages=True,
        # Mutations, too.
        executes=("/dagster/graphql",),
    ),
    Route(prefix="/containers/visualization", upstream="visualization", strips=True, is_page=True, serves_pages=True),
    Route(prefix=f"/containers/{ANY_CONTAINER}", upstream=ANY_CONTAINER, strips=True),
    Route(prefix="", upstream="dashboard", strips=False, serves_pages=True),
)


@dataclass(frozen=True, slots=True)
class Target:
    """Where one request goes: `path` is raw, as the upstream shall see it; `prefix` what was stripped from it."""

    route: Route
    container: str
    path: str
    prefix: str
    redirect: str | None = None

    @property
    def name(self) -> str:
        """The container, or what else is there, for people to read."""
        return self.container.strip("{}")

    @property
    def plain_path(self) -> str:
        """The path as the most lenient upstream could read it, to look for what must not be missed."""
        decoded = unquote(unquote(self.path, errors="replace"), errors="replace")
        return re.sub(r"[/\\]+", "/", decoded).lower()

    @property
    def executes(self) -> bool:
        """Tell whether a query would be executed there."""
        return self.plain_path.startswith(self.route.executes)


def match(raw_path: str) -> Target:
    """Return where a raw request path (percent-encoded, without its query) goes.

    Raises NotFoundError for a path that climbs out of its prefix or names an impossible container.
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
    # Decoded once, as every upstream does: the climbing segment may be hidden in %2e or %2f.
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
    """Return a `Location` that leads back through the gateway, also when the upstream gave its own address.

    `host` is where the client found us. None for one that leads elsewhere, to another upstream above all, from where
    only data is expected: a browser that follows it asks in the name of our own pages.
    """
    location = _lead_back(location, target, base_url)
    ours = f"(?:https?://{re.escape(host)})?{re.escape(target.prefix)}{OUR_LOCATION}"
    return location if target.route.serves_pages or re.fullmatch(ours, location, re.IGNORECASE) else None


def _lead_back(location: str, target: Target, base_url: str) -> str:
    try:
        parts = urlsplit(location)
    except ValueError:
        return location
    if parts.scheme or parts.netloc:
        ours = {urlsplit(base_url).netloc, target.container}
        if parts.netloc not in ours:
            return location
        location = parts._replace(scheme="", netloc="").geturl() or "/"
    if not target.route.strips or not location.startswith("/"):
        return location
    if location == target.prefix or location.startswith(f"{target.prefix}/"):
        return location
    return target.prefix + location
