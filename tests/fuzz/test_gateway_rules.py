"""The gateway's rules for hosts, sites, sessions, paths, redirects and headers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from random import Random
from urllib.parse import unquote, urljoin, urlsplit

import pytest
from multidict import CIMultiDict

from bonseyes_dagster.errors import BonseyesError, ForbiddenError
from bonseyes_dagster.gateway import access
from bonseyes_dagster.gateway.headers import FORWARDED, HOP_BY_HOP, answer_headers, request_headers
from bonseyes_dagster.gateway.login import Login, _safe_redirect
from bonseyes_dagster.gateway.routes import match, rewrite_location
from tests.fuzz.cases import fuzz
from tests.fuzz.mutation import mutated_text

RULES = access.AccessRules(frozenset({("127.0.0.1", "8000"), ("example.com", ""), ("[::1]", "8000")}), "secret")
_PATHS = (
    "/",
    "/dagster/graphql",
    "/containers/training/artifacts/a/data/x",
    "/containers/",
    "/login",
    "/containers/visualization",
)
_WORDS = (
    "/",
    "//",
    "..",
    "%2e%2e",
    "%252e",
    "%2f",
    "\\",
    "%5c",
    ";",
    "@",
    ":",
    "%00",
    "%0d%0a",
    "http://",
    "evil.example",
    "?",
    "#",
)
_LOCATIONS = ("/artifacts/a", "http://127.0.0.1:8123/artifacts/a", "//evil.example/", "http://evil.example/", "a/b", "")


def test_only_allowed_hosts_pass() -> None:
    """The list of allowed hosts must have the name and its port."""
    hosts = ("127.0.0.1:8000", "example.com", "[::1]:8000", "EXAMPLE.com:80")
    allowed = re.compile(r"\s*(127\.0\.0\.1:8000|\[::1\]:?8000|example\.com(:.*)?)\s*", re.IGNORECASE | re.DOTALL)

    def check(host: str) -> None:
        try:
            access.check_host(host, RULES)
        except ForbiddenError:
            return
        assert allowed.fullmatch(host), host

    fuzz("hosts", lambda random: mutated_text(random, random.choice(hosts), _WORDS), check)


def test_a_post_from_another_site_is_refused() -> None:
    """A browser sends the origin of a request. Only the gateway's own origin passes."""
    headers = {"Origin": "http://example.com", "Sec-Fetch-Site": "same-origin", "Host": "example.com"}

    def make(random: Random) -> dict[str, str]:
        name = random.choice(("Origin", "Sec-Fetch-Site"))
        return {**headers, name: mutated_text(random, headers[name], (*_WORDS, "cross-site", "none", "null", "https"))}

    def check(case: Mapping[str, str]) -> None:
        try:
            access.check_site("POST", case)
        except ForbiddenError:
            return
        assert case["Origin"].lower() in ("http://example.com", "https://example.com")
        assert case["Sec-Fetch-Site"] in ("same-origin", "none")

    fuzz("sites", make, check)


def test_only_a_valid_session_or_token_is_signed_in() -> None:
    """A cookie or a bearer token that is almost right does not pass."""
    login = Login(RULES)
    session = access.make_session(RULES, now_s=2e9, nonce="abc")
    name = access.session_cookie(RULES)

    def check(case: tuple[str, str]) -> None:
        cookie, bearer = case
        signed_in = login.is_signed_in({"Authorization": bearer}, {name: cookie})
        is_bearer = re.fullmatch(r"(?i:bearer) \s*secret\s*", bearer) is not None
        assert signed_in is (cookie == session or is_bearer)

    def make(random: Random) -> tuple[str, str]:
        cookie, bearer = mutated_text(random, session, (".", "9" * 5000)), mutated_text(random, "Bearer secret", (" ",))
        # In a header, bytes that are not Unicode become surrogates from 0xdc80 on.
        return cookie.replace("\ud800", "\udc80"), bearer.replace("\ud800", "\udc80")

    fuzz("sessions", make, check)


def test_no_path_leaves_its_prefix() -> None:
    """The path may be encoded, also twice."""

    def check(path: str) -> None:
        try:
            target = match(path)
        except BonseyesError:
            return
        assert target.path.startswith("/")
        assert not {".", ".."} & set(unquote(target.path).replace("\\", "/").split("/"))
        if target.redirect is not None:
            assert urlsplit(urljoin("http://example.com/", target.redirect)).netloc == "example.com"

    fuzz("paths", lambda random: mutated_text(random, random.choice(_PATHS), _WORDS), check)


def test_the_redirect_after_login_stays_on_this_host() -> None:
    """Browsers read a backslash as a slash, and ignore tabs and newlines."""

    def check(target: str) -> None:
        browser = re.sub(r"[\t\r\n]", "", _safe_redirect(target)).replace("\\", "/").strip()
        assert urlsplit(urljoin("http://example.com/login", browser)).netloc == "example.com"

    fuzz(
        "targets of signing in", lambda random: mutated_text(random, random.choice(_LOCATIONS + _PATHS), _WORDS), check
    )


def test_a_location_of_a_container_stays_below_the_container_or_is_dropped() -> None:
    """The author of a tool controls the header. It must not redirect a browser to another site."""
    target = match("/containers/training/artifacts/a")

    def check(location: str) -> None:
        found = rewrite_location(location, target, "http://127.0.0.1:8123", "example.com")
        if found is None:
            return
        browser = re.sub(r"[\t\r\n]", "", found).replace("\\", "/")
        url = urlsplit(urljoin("http://example.com/containers/training/artifacts/a", browser))
        assert url.netloc == "example.com"
        assert url.path.startswith("/containers/training")
        assert not {".", ".."} & set(re.sub("(?i)%2e", ".", url.path).split("/"))

    fuzz("locations", lambda random: mutated_text(random, random.choice(_LOCATIONS), (*_WORDS, "?x=..")), check)


def test_the_gateway_drops_hop_by_hop_and_forged_headers() -> None:
    """A client must not forge the headers that the gateway sets."""
    target = match("/containers/training/artifacts/a/data/x")
    names = sorted(
        HOP_BY_HOP | FORWARDED | {"cookie", "authorization", "content-type", "x-a", "refresh", "location", "etag"}
    )

    def make(random: Random) -> CIMultiDict[str]:
        headers = CIMultiDict({"Host": "example.com"})
        for _ in range(6):
            name = random.choice(names)
            headers.add(
                name.replace("-", random.choice("--_")),
                mutated_text(random, random.choice((*names, "a=b; c")), (",", ";")),
            )
        return headers

    def check(headers: CIMultiDict[str]) -> None:
        secrets = {"cookie:a", "authorization"}
        asked = request_headers(headers, target, client="1.2.3.4", scheme="http", secrets=secrets)
        assert not [
            name for name in asked if name.lower() in HOP_BY_HOP or "_" in name or name.lower() == "authorization"
        ]
        assert not [c for c in asked.get("Cookie", "").split(";") if c.partition("=")[0].strip() == "a"]
        assert asked.getall("X-Forwarded-Prefix") == ["/containers/training"]
        assert asked.getall("X-Forwarded-Host") == ["example.com"]
        given = answer_headers(headers, target, "http://127.0.0.1:8123", "example.com")
        assert given.getall("Content-Security-Policy") == ["default-src 'none'; sandbox"]
        assert "Refresh" not in given

    fuzz("headers", make, check)


@pytest.mark.parametrize("value", ["", ".", "..", "a.b.c", "9" * 5000 + ".x.y", "\udcff"])
def test_an_invalid_cookie_is_no_session(value: str) -> None:
    """Its parts may be missing, too many, too long or not Unicode."""
    assert access.read_session(value, RULES, now_s=0) is None
