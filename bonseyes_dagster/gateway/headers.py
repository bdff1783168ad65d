"""What the gateway drops, adds and keeps of the headers that pass through it, in both directions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Literal

from multidict import CIMultiDict, CIMultiDictProxy

from bonseyes_dagster.gateway.routes import Target, rewrite_location

__all__ = [
    "CONTENT_POLICY",
    "CORS",
    "FORWARDED",
    "HOP_BY_HOP",
    "ORDERS",
    "PAGE_POLICY",
    "SECURITY_HEADERS",
    "answer_headers",
    "content_of",
    "request_headers",
    "secure",
]

Headers = CIMultiDictProxy[str] | CIMultiDict[str]

# RFC 9110 7.6.1: they speak of one connection, not of the message.
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
# What would let other sites read an answer.
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
# What would have a browser report elsewhere what it does here, or go there.
ORDERS = frozenset(["content-security-policy-report-only", "nel", "refresh", "report-to", "reporting-endpoints"])
PAGE_POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; object-src 'none'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'self'"
)
# What a tool answers, or made, or a user uploaded, must never run as a page of ours.
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
    """Return what a target answers with; files are bytes that users uploaded or tools made."""
    if target.route.serves_pages:
        return "page"
    return "file" if _FILES.match(target.plain_path) else "data"


def request_headers(
    headers: Headers, target: Target, *, client: str, scheme: str, secrets: Iterable[str] = ()
) -> CIMultiDict[str]:
    """Return what the upstream gets; `secrets` are header names, or `cookie:NAME`, that end at the gateway."""
    secrets = frozenset(secrets)
    dropped = HOP_BY_HOP | FORWARDED | _named_in_connection(headers) | {"host", "expect"} | secrets
    # WSGI knows no difference between X_Forwarded_For and X-Forwarded-For: with the former one could forge the latter.
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
    """Return what the client gets: no hop-by-hop headers, no CORS, our policies, a Location that leads back to us."""
    dropped = HOP_BY_HOP | CORS | ORDERS | {"location"} | _named_in_connection(headers)
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
    """Add the policies; a page's own Content-Security-Policy (Dagster's has a nonce) stays."""
    headers.update(SECURITY_HEADERS)
    headers.setdefault("Content-Security-Policy", PAGE_POLICY)
    headers["Server"] = "bonseyes"
    return headers


def _attach(headers: CIMultiDict[str]) -> None:
    disposition = headers.get("Content-Disposition", "")
    kind, separator, rest = disposition.partition(";")
    # Errors are ours, and JSON; calling them attachments would only hide them.
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
