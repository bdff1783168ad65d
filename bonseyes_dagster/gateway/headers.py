"""The headers that the gateway removes, adds and keeps, in requests and answers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Literal

from multidict import CIMultiDict, CIMultiDictProxy

from bonseyes_dagster.gateway.routes import Target, rewrite_location

__all__ = [
    "BROWSER_COMMANDS",
    "CONTENT_POLICY",
    "CORS",
    "FORWARDED",
    "HOP_BY_HOP",
    "PAGE_POLICY",
    "SECURITY_HEADERS",
    "answer_headers",
    "content_of",
    "request_headers",
    "secure",
]

Headers = CIMultiDictProxy[str] | CIMultiDict[str]

# RFC 9110 7.6.1: these headers are about one connection, not about the message.
HOP_BY_HOP = frozenset(
    [
        "connection",
        "http2-settings",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ]
)
FORWARDED = frozenset(["forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-prefix", "x-forwarded-proto"])
# These headers would let other sites read an answer.
CORS = frozenset(
    f"access-control-{name}"
    for name in (
        "allow-credentials",
        "allow-headers",
        "allow-methods",
        "allow-origin",
        "allow-private-network",
        "expose-headers",
        "max-age",
    )
)
# These headers would make a browser send reports to another site, or go to it.
BROWSER_COMMANDS = frozenset(
    ["content-security-policy-report-only", "nel", "refresh", "report-to", "reporting-endpoints"]
)
PAGE_POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; object-src 'none'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'self'"
)
# Answers and files of tools, and uploads of users, must never run as a page of this site.
CONTENT_POLICY = "default-src 'none'; sandbox"
SECURITY_HEADERS: Mapping[str, str] = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "SAMEORIGIN",
}
_FILES = re.compile(r"/(artifacts|runs)/[^/]+/(data|input[-_]files)(/|$)")


def content_of(target: Target) -> Literal["page", "data", "file"]:
    """Return the kind of a target's answers; files are bytes that users uploaded or tools made."""
    if target.route.serves_pages:
        return "page"
    return "file" if _FILES.match(target.plain_path) else "data"


def request_headers(
    headers: Headers, target: Target, *, client: str, scheme: str, secrets: Iterable[str] = ()
) -> CIMultiDict[str]:
    """Return the headers for the upstream, without `secrets`: header names, or `cookie:NAME`."""
    secrets = frozenset(secrets)
    dropped = HOP_BY_HOP | FORWARDED | _named_in_connection(headers) | {"host", "expect"} | secrets
    # No names with `_`: WSGI cannot tell X_Forwarded_For from X-Forwarded-For, so a client could forge the latter.
    kept = CIMultiDict(
        (name, value) for name, value in headers.items() if name.lower() not in dropped and "_" not in name
    )
    _drop_cookies(kept, secrets)
    before = headers.get("X-Forwarded-For")
    kept["X-Forwarded-For"] = f"{before}, {client}" if before else client
    proto = headers.get("X-Forwarded-Proto", "").lower()
    kept["X-Forwarded-Proto"] = proto if proto in ("http", "https") else scheme
    kept["X-Forwarded-Host"] = headers.get("Host", "")
    if target.prefix:
        kept["X-Forwarded-Prefix"] = target.prefix
    return kept


def answer_headers(headers: Headers, target: Target, base_url: str, host: str) -> CIMultiDict[str]:
    """Return the headers for the client: no hop-by-hop and CORS headers, the policies, a Location at the gateway."""
    dropped = HOP_BY_HOP | CORS | BROWSER_COMMANDS | {"location"} | _named_in_connection(headers)
    kept = CIMultiDict((name, value) for name, value in headers.items() if name.lower() not in dropped)
    location = rewrite_location(headers["Location"], target, base_url, host) if "Location" in headers else None
    if location is not None:
        kept["Location"] = location
    content = content_of(target)
    if content != "page":
        kept["Content-Security-Policy"] = CONTENT_POLICY
    if content == "file":
        _attach(kept)
    return secure(kept)


def secure(headers: CIMultiDict[str]) -> CIMultiDict[str]:
    """Add the policies; keep a page's own Content-Security-Policy (Dagster's has a nonce)."""
    headers.update(SECURITY_HEADERS)
    headers.setdefault("Content-Security-Policy", PAGE_POLICY)
    headers["Server"] = "bonseyes"
    return headers


def _attach(headers: CIMultiDict[str]) -> None:
    disposition = headers.get("Content-Disposition", "")
    kind, separator, rest = disposition.partition(";")
    # Errors are JSON of this project. A browser would save an attachment instead of showing the error.
    if kind.strip().lower() != "attachment" and not headers.get("Content-Type", "").startswith("application/json"):
        headers["Content-Disposition"] = f"attachment{separator}{rest}"


def _named_in_connection(headers: Headers) -> frozenset[str]:
    return frozenset(
        name.strip().lower() for value in headers.getall("Connection", []) for name in value.split(",") if name.strip()
    )


def _drop_cookies(headers: CIMultiDict[str], secrets: Iterable[str]) -> None:
    names = {secret.removeprefix("cookie:") for secret in secrets if secret.startswith("cookie:")}
    cookies = [
        cookie.strip()
        for value in headers.popall("Cookie", [])
        for cookie in value.split(";")
        if cookie.strip() and cookie.partition("=")[0].strip() not in names
    ]
    if cookies:
        headers["Cookie"] = "; ".join(cookies)
