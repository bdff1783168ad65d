"""Who may ask the gateway for what: the rules that every request passes before any upstream hears of it."""

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
    "Rules",
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
class Rules:
    """What is checked: `hosts` are (name, port) pairs, an empty port standing for any."""

    hosts: frozenset[_Host]
    token: str = ""


def rules_from_settings(settings: Settings, host: str, port: int) -> Rules:
    """Return the rules of a gateway bound to `host`:`port`; refuse an open bind without a token."""
    check_bind(host, settings.token)
    hosts = {(name, str(port)) for name in LOOPBACK_NAMES}
    if not _is_wildcard(host):
        hosts.add((f"[{host}]" if ":" in host else host.lower(), str(port)))
    hosts.update(split_host(entry) for entry in settings.allowed_hosts)
    if settings.url:
        hosts.add(split_host(urlsplit(settings.url).netloc))
    return Rules(frozenset(hosts), settings.token)


def check_bind(host: str, token: str) -> None:
    """Refuse to listen where others can connect while nothing protects what is behind."""
    if not token and not is_loopback(host):
        raise SettingsError(
            f"The gateway would be open to everyone who can reach {host}: set BONSEYES_TOKEN, or bind 127.0.0.1."
        )


def _is_wildcard(host: str) -> bool:
    return host in ("", "0.0.0.0", "::", "[::]")  # noqa: S104 - compared, not bound


def check_host(host: str | None, rules: Rules) -> None:
    """Refuse a Host that is not ours, so that a foreign name that resolves to us (DNS rebinding) reaches nothing."""
    if host is not None and _is_ours(host, rules):
        return
    raise ForbiddenError(
        f"This gateway does not answer to the Host {host!r}; BONSEYES_ALLOWED_HOSTS names those that it does."
    )


def _is_ours(host: str, rules: Rules) -> bool:
    name, port = split_host(host)
    # Port 80 and 443 are left out of a Host header by browsers.
    ports = (port, "") if port else ("80", "443", "")
    return any((name, candidate) in rules.hosts for candidate in ports)


def check_site(method: str, headers: Mapping[str, str], *, changes: bool = False) -> None:
    """Refuse what another site's page made the browser send, but for a link to here that somebody follows.

    `changes` says that the request may change something although its method is safe (a websocket, signing out): then
    not even that. Without Origin and Sec-Fetch-Site it is not a browser's, or an old one's, and passes.
    """
    if method == "GET" and not changes and _opens_page(headers):
        return
    site = headers.get("Sec-Fetch-Site")
    if site not in (None, "same-origin", "none"):
        raise ForbiddenError(f"This request comes from another site (Sec-Fetch-Site: {site}) and was refused.")
    origin = headers.get("Origin")
    if origin is not None and not _is_same_origin(origin, headers.get("Host", "")):
        raise ForbiddenError(f"This request comes from another site (Origin: {origin}) and was refused.")


def _opens_page(headers: Mapping[str, str]) -> bool:
    return (headers.get("Sec-Fetch-Mode"), headers.get("Sec-Fetch-Dest")) == ("navigate", "document")


def _is_same_origin(origin: str, host: str) -> bool:
    scheme, separator, rest = origin.lower().partition("://")
    return scheme in ("http", "https") and bool(separator) and bool(host) and rest == host.lower()


def bearer_token(headers: Mapping[str, str]) -> str | None:
    """Return the token of `Authorization: Bearer TOKEN`, or None."""
    scheme, _, token = headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def is_token(candidate: str | None, rules: Rules) -> bool:
    """Compare in constant time."""
    return candidate is not None and hmac.compare_digest(_bytes(candidate), _bytes(rules.token))


def unauthorized() -> UnauthorizedError:
    """Return the error that says how to come in."""
    return UnauthorizedError("A token is needed: send Authorization: Bearer TOKEN, or sign in at /login.")


def session_cookie(rules: Rules) -> str:
    """Return the cookie's name: cookies are shared between the ports of a machine, so each token has its own."""
    return "bonseyes_" + _mac(rules, "cookie")[:12]


def make_session(rules: Rules, *, now_s: float, nonce: str) -> str:
    """Return a cookie value that proves a login until it expires and from which the token cannot be told."""
    body = f"{int(now_s) + SESSION_S}.{nonce}"
    return f"{body}.{_mac(rules, 'session', body)}"


def read_session(value: str | None, rules: Rules, *, now_s: float) -> str | None:
    """Return the nonce of a cookie value that we made and that has not expired, or None."""
    body, _, mac = (value or "").rpartition(".")
    expiry, _, nonce = body.partition(".")
    if not hmac.compare_digest(_bytes(mac), _bytes(_mac(rules, "session", body))):
        return None
    return nonce if now_s < int(expiry) else None


def _mac(rules: Rules, *parts: str) -> str:
    return hmac.new(_bytes(rules.token), "\0".join(parts).encode(errors="replace"), hashlib.sha256).hexdigest()


def _bytes(text: str) -> bytes:
    # Bytes that are no UTF-8 come as surrogates, and any text must be comparable.
    return text.encode(errors="surrogatepass")
