"""The access rules of the gateway: token, Host and Origin. Every request must pass them before it is forwarded."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from bonseyes_dagster.errors import ForbiddenError, SettingsError, UnauthorizedError
from bonseyes_dagster.settings import Settings
from bonseyes_dagster.system.hosts import is_loopback, split_host

__all__ = [
    "AccessRules",
    "bearer_token",
    "check_bind",
    "check_host",
    "check_site",
    "is_token",
    "make_session",
    "read_session",
    "rules_from_settings",
    "session_cookie",
    "unauthorized",
]

LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")
SESSION_S = 7 * 24 * 3600

_Host = tuple[str, str]


@dataclass(frozen=True, slots=True)
class AccessRules:
    """The allowed hosts and the token: `hosts` are (name, port) pairs; an empty port allows any port."""

    hosts: frozenset[_Host]
    token: str = ""


def rules_from_settings(settings: Settings, host: str, port: int) -> AccessRules:
    """Return the rules of a gateway bound to `host`:`port`; raise SettingsError for an open bind without a token."""
    check_bind(host, settings.token)
    hosts = {(name, str(port)) for name in LOOPBACK_NAMES}
    if not _is_wildcard(host):
        hosts.add((f"[{host}]" if ":" in host else host.lower(), str(port)))
    hosts.update(split_host(entry) for entry in settings.allowed_hosts)
    if settings.url:
        hosts.add(split_host(urlsplit(settings.url).netloc))
    return AccessRules(frozenset(hosts), settings.token)


def check_bind(host: str, token: str) -> None:
    """Raise SettingsError for an address that other machines can reach, unless there is a token."""
    if not token and not is_loopback(host):
        raise SettingsError(
            f"Everyone who can reach {host} could use this gateway: set BONSEYES_TOKEN, or bind 127.0.0.1."
        )


def _is_wildcard(host: str) -> bool:
    return host in ("", "0.0.0.0", "::", "[::]")  # noqa: S104 - compared, not bound


def check_host(host: str | None, rules: AccessRules) -> None:
    """Refuse a Host that the rules do not list: a foreign name can resolve to this machine (DNS rebinding)."""
    if host is not None and _is_listed(host, rules):
        return
    raise ForbiddenError(
        f"This gateway does not answer to the Host {host!r}; add it to BONSEYES_ALLOWED_HOSTS to allow it."
    )


def _is_listed(host: str, rules: AccessRules) -> bool:
    name, port = split_host(host)
    # Browsers leave out the ports 80 and 443 in a Host header.
    ports = (port, "") if port else ("80", "443", "")
    return any((name, candidate) in rules.hosts for candidate in ports)


def check_site(method: str, headers: Mapping[str, str], *, changes: bool = False) -> None:
    """Refuse a request that a page of another site made the browser send; allow a link that a user follows.

    `changes` says that the request may change something although its method is GET (a websocket, signing out). Then
    links from other sites are refused, too. A request without Origin and Sec-Fetch-Site does not come from a browser,
    or comes from an old one, and passes.
    """
    if method == "GET" and not changes and _opens_page(headers):
        return
    site = headers.get("Sec-Fetch-Site")
    if site not in (None, "same-origin", "none"):
        raise ForbiddenError(f"This request comes from another site (Sec-Fetch-Site: {site}); send it from this one.")
    origin = headers.get("Origin")
    if origin is not None and not _is_same_origin(origin, headers.get("Host", "")):
        raise ForbiddenError(f"This request comes from another site (Origin: {origin}); send it from this one.")


def _opens_page(headers: Mapping[str, str]) -> bool:
    return (headers.get("Sec-Fetch-Mode"), headers.get("Sec-Fetch-Dest")) == ("navigate", "document")


def _is_same_origin(origin: str, host: str) -> bool:
    scheme, separator, rest = origin.lower().partition("://")
    return scheme in ("http", "https") and bool(separator) and bool(host) and rest == host.lower()


def bearer_token(headers: Mapping[str, str]) -> str | None:
    """Return the token of `Authorization: Bearer TOKEN`, or None."""
    scheme, _, token = headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def is_token(candidate: str | None, rules: AccessRules) -> bool:
    """Tell whether `candidate` is the token, in constant time."""
    return candidate is not None and hmac.compare_digest(_bytes(candidate), _bytes(rules.token))


def unauthorized() -> UnauthorizedError:
    """Return the error for a request without a valid token; its message says how to sign in."""
    return UnauthorizedError("A token is needed: send Authorization: Bearer TOKEN, or sign in at /login.")


def session_cookie(rules: AccessRules) -> str:
    """Return the name of the session cookie; it depends on the token, because all ports of a machine share cookies."""
    return "bonseyes_" + _mac(rules, "cookie")[:12]


def make_session(rules: AccessRules, *, now_s: float, nonce: str) -> str:
    """Return a cookie value that proves a login until it expires; the token cannot be computed from it."""
    body = f"{int(now_s) + SESSION_S}.{nonce}"
    return f"{body}.{_mac(rules, 'session', body)}"


def read_session(value: str | None, rules: AccessRules, *, now_s: float) -> str | None:
    """Return the nonce of a valid cookie value; None for one that has expired or that `make_session` did not make."""
    body, _, mac = (value or "").rpartition(".")
    expiry, _, nonce = body.partition(".")
    if not hmac.compare_digest(_bytes(mac), _bytes(_mac(rules, "session", body))):
        return None
    return nonce if now_s < int(expiry) else None


def _mac(rules: AccessRules, *parts: str) -> str:
    return hmac.new(_bytes(rules.token), "\0".join(parts).encode(errors="replace"), hashlib.sha256).hexdigest()


def _bytes(text: str) -> bytes:
    # aiohttp decodes bytes that are not UTF-8 to surrogates; they must be comparable, too.
    return text.encode(errors="surrogatepass")
