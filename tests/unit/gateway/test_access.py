"""The access rules of the gateway: bind, Host, Origin and token, without a server."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from bonseyes_dagster.errors import ForbiddenError, SettingsError
from bonseyes_dagster.gateway.access import (
    SESSION_S,
    AccessRules,
    bearer_token,
    check_bind,
    check_host,
    check_site,
    is_token,
    make_session,
    read_session,
    rules_from_settings,
    session_cookie,
)
from bonseyes_dagster.settings import Settings
from bonseyes_dagster.system.hosts import split_host

TOKEN = "a token of some length"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "localhost", "::1", "[::1]"])
def test_loopback_needs_no_token(host: str) -> None:
    """Only this machine can connect there."""
    check_bind(host, "")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "gpu-box", "", "10.0.0.1"])
def test_an_open_bind_needs_a_token(host: str) -> None:
    """The gateway refuses it before it listens, and the message says what to do."""
    with pytest.raises(SettingsError, match="BONSEYES_TOKEN"):
        check_bind(host, "")
    check_bind(host, TOKEN)


RULES = rules_from_settings(
    Settings(allowed_hosts=("gpu-box", "tls.example.org:8443"), url="https://pipelines.example.org"), "127.0.0.1", 8000
)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:8000",
        "localhost:8000",
        "LOCALHOST:8000",
        "[::1]:8000",
        "gpu-box",
        "gpu-box:8000",
        "gpu-box:9999",
        "tls.example.org:8443",
        "pipelines.example.org",
        "pipelines.example.org:443",
    ],
)
def test_own_host_names_are_accepted(host: str) -> None:
    """Loopback with the port, the hosts in the settings, and the address that clients use."""
    check_host(host, RULES)


@pytest.mark.parametrize(
    "host",
    [None, "", "evil.example", "evil.example:8000", "127.0.0.1", "127.0.0.1:80", "127.0.0.1:9000",
     "localhost.evil.example:8000", "tls.example.org", "[::1]", "127.0.0.1:8000@evil", "gpu-box.evil"],
)  # fmt: skip
def test_other_hosts_are_refused(host: str | None) -> None:
    """An attacker can make a foreign name resolve to this machine."""
    with pytest.raises(ForbiddenError, match="BONSEYES_ALLOWED_HOSTS"):
        check_host(host, RULES)


def test_the_bound_address_is_accepted() -> None:
    """An IPv6 address, too; a wildcard address is not a host name."""
    settings = Settings(token=TOKEN)
    check_host("192.168.1.5:80", rules_from_settings(settings, "192.168.1.5", 80))
    check_host("192.168.1.5", rules_from_settings(settings, "192.168.1.5", 80))
    check_host("[fd00::1]:8000", rules_from_settings(settings, "fd00::1", 8000))
    with pytest.raises(ForbiddenError):
        check_host("0.0.0.0:8000", rules_from_settings(settings, "0.0.0.0", 8000))


def test_split_host_separates_name_and_port() -> None:
    """IPv6 addresses contain colons."""
    assert split_host("[::1]:8000") == ("[::1]", "8000")
    assert split_host("Example.ORG:1") == ("example.org", "1")
    assert split_host("example.org") == ("example.org", "")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:9000"},
        {"Origin": "http://127.0.0.1:8000.evil.example"},
        {"Origin": "file://127.0.0.1:8000"},
        {"Sec-Fetch-Site": "same-origin", "Origin": "http://evil.example"},
    ],
)
def test_an_unsafe_request_of_another_site_is_refused(method: str, headers: dict[str, str]) -> None:
    """Another port of this machine is another site, too."""
    with pytest.raises(ForbiddenError, match="another site"):
        check_site(method, CIMultiDict({"Host": "127.0.0.1:8000", **headers}))


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "http://127.0.0.1:8000"},
        {"Origin": "https://127.0.0.1:8000"},
        {"Sec-Fetch-Site": "same-origin", "Origin": "http://127.0.0.1:8000"},
        {"Sec-Fetch-Site": "none"},
    ],
)
def test_own_pages_and_programs_may_write(headers: dict[str, str]) -> None:
    """A program sends neither header; an own page sends both, and TLS may end before the gateway."""
    check_site("POST", CIMultiDict({"Host": "127.0.0.1:8000", **headers}))


def test_a_link_from_another_site_may_open_a_page() -> None:
    """A page load changes nothing; images, frames and fetches stay forbidden."""
    link = {"Host": "h", "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    check_site("GET", CIMultiDict(link))
    with pytest.raises(ForbiddenError):
        check_site("GET", CIMultiDict(link), changes=True)
    with pytest.raises(ForbiddenError):
        check_site("POST", CIMultiDict(link))
    for other in ({"Sec-Fetch-Dest": "iframe"}, {"Sec-Fetch-Mode": "no-cors"}):
        with pytest.raises(ForbiddenError):
            check_site("GET", CIMultiDict(link | other))
    with pytest.raises(ForbiddenError):
        check_site("GET", CIMultiDict({"Host": "127.0.0.1:8000", "Origin": "http://evil.example"}))
    check_site("GET", CIMultiDict(link | {"Sec-Fetch-Site": "none"}), changes=True)


def test_the_whole_bearer_token_must_match() -> None:
    """Schemes are not case-sensitive; a prefix of the token is not the token."""
    rules = AccessRules(frozenset(), TOKEN)
    assert is_token(bearer_token(CIMultiDict({"Authorization": f"bearer {TOKEN}"})), rules)
    for wrong in (f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", "Bearer ", "Basic eDp5", ""):
        assert not is_token(bearer_token(CIMultiDict({"Authorization": wrong})), rules)
    assert not is_token(bearer_token(CIMultiDict()), rules)
    assert not is_token("é\udcff", rules)


def test_a_session_proves_a_login_until_it_expires() -> None:
    """Neither the session nor the name of the cookie reveals the token."""
    rules = AccessRules(frozenset(), TOKEN)
    value = make_session(rules, now_s=1000, nonce="n1")
    assert read_session(value, rules, now_s=1000 + SESSION_S - 1) == "n1"
    assert read_session(value, rules, now_s=1000 + SESSION_S) is None
    assert TOKEN not in value
    assert TOKEN not in session_cookie(rules)
    assert session_cookie(rules) != session_cookie(AccessRules(frozenset(), "another"))


def test_a_session_of_another_token_is_invalid() -> None:
    """A new token ends every session."""
    value = make_session(AccessRules(frozenset(), "old"), now_s=0, nonce="n")
    assert read_session(value, AccessRules(frozenset(), "new"), now_s=1) is None


@given(st.text(max_size=80))
def test_an_invented_session_is_invalid(text: str) -> None:
    """Any content of a cookie is read without an error."""
    assert read_session(text, AccessRules(frozenset(), TOKEN), now_s=0) is None


@given(st.integers(0, 200), st.characters())
def test_a_changed_session_is_invalid(index: int, character: str) -> None:
    """Each character of a session counts, above all the expiry."""
    rules = AccessRules(frozenset(), TOKEN)
    value = make_session(rules, now_s=1000, nonce="nonce")
    index %= len(value)
    changed = value[:index] + character + value[index + 1 :]
    if changed != value:
        assert read_session(changed, rules, now_s=1000) is None
