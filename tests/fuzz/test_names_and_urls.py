"""The parsers of names, of artifact values, and of the URLs that tools may fetch."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import socket
import string
from pathlib import Path
from random import Random

import pytest
from urllib3.exceptions import LocationParseError
from urllib3.util import parse_url

from bonseyes_dagster import urls
from bonseyes_dagster.client.addresses import Addresses
from bonseyes_dagster.errors import ForbiddenError, InvalidError, SettingsError, ToolError
from bonseyes_dagster.settings import Settings
from bonseyes_dagster.tool.fetching.outbound import Policy, fetch, file_name_of
from tests.fuzz.cases import CASES, fuzz
from tests.fuzz.mutation import mutated_bytes, mutated_text, odd_text

_LETTERS = frozenset(string.ascii_letters + string.digits)
_NAMES = ("a", "training", "A.b-c_d", "digits-cnn_training", "x" * 128, "0")
_URLS = (
    "http://training/artifacts/first",
    "training/first",
    "http://127.0.0.1:8123/artifacts/first",
    "https://example.com/a/b.bin?x=1#y",
    "http://[2001:db8::1]:80/x",
    "http://user:secret@example.com:80/",
)
_WORDS = (
    "http://",
    "https://",
    "file://",
    "@",
    ":80",
    ":",
    "#",
    "?",
    "\\",
    "/artifacts/",
    "%2f",
    "%00",
    "[",
    "]",
    "\t",
)
_HOSTS = (
    "127.0.0.1",
    "127.1",
    "0x7f.1",
    "2130706433",
    "0177.0.0.1",
    "10.0.0.1",
    "169.254.169.254",
    "8.8.8.8",
    "::1",
    "::ffff:127.0.0.1",
    "fe80::1%lo",
    "2001:4860:4860::8888",
    "0",
    "255.255.255.255",
    "224.0.0.1",
)


def is_valid_name(text: str) -> bool:
    """Check the contract's rule for names, character by character."""
    return (
        0 < len(text) <= 128
        and text[0] in _LETTERS
        and all(c in _LETTERS or c in "._-" for c in text)
        and ".." not in text
    )


def test_names_follow_the_rule_of_the_contract() -> None:
    """Regular expressions have surprises: `$` also matches before a newline."""

    def check(text: str) -> None:
        assert urls.is_name(text) is is_valid_name(text)

    fuzz("names", lambda random: mutated_text(random, random.choice(_NAMES)), check)


def test_an_artifact_value_gives_two_names_or_raises_invalid_error(tmp_path: Path) -> None:
    """The canonical URL of these names gives the same names."""
    file = tmp_path / "addresses.json"
    file.write_text(json.dumps({"training": "http://127.0.0.1:8123"}))
    addresses = Addresses(file)

    def check(value: str) -> None:
        try:
            container, name = addresses.parse_artifact(value)
        except InvalidError:
            return
        assert is_valid_name(container)
        assert is_valid_name(name)
        assert addresses.parse_artifact(urls.canonical(container, name)) == (container, name)

    fuzz("artifact values", lambda random: mutated_text(random, random.choice(_URLS), _WORDS), check)


def test_the_policy_checks_the_host_that_the_library_connects_to(tmp_path: Path) -> None:
    """The policy and the HTTP library must find the same host in a URL."""
    policy = Policy(("example.com", "*.example.org:8080"), Addresses(tmp_path / "none.json"))

    def check(url: str) -> None:
        try:
            policy.check_url(url)
        except ForbiddenError:
            return
        file_name_of(url)
        try:
            parts = parse_url(url)
        except LocationParseError:
            return
        host, port = (parts.host or "").rstrip("."), parts.port or {"http": 80, "https": 443}[parts.scheme or ""]
        is_listed = host == "example.com" or (host.endswith(".example.org") and port == 8080)
        is_container = port == 80 and "." not in host and ":" not in host
        assert is_listed or is_container, (host, port)

    fuzz("fetched URLs", lambda random: mutated_text(random, random.choice(_URLS), _WORDS), check)


def test_only_public_addresses_are_allowed(tmp_path: Path) -> None:
    """Resolvers accept many forms of an address."""
    policy = Policy(("*",), Addresses(tmp_path / "none.json"))

    def check(host: str) -> None:
        try:
            socket.getaddrinfo(host, 443, flags=socket.AI_NUMERICHOST)
        except (OSError, ValueError):
            return  # a host name: this test sends no DNS queries
        try:
            found = policy.resolve(host, 443)
        except ForbiddenError:
            return
        assert all(ipaddress.ip_address(info[4][0]).is_global for info in found)

    words = ("0x", "0", ".", "::", "::ffff:", "%1")
    fuzz("addresses", lambda random: mutated_text(random, random.choice(_HOSTS), words), check)


@pytest.mark.parametrize(
    "host", ["a" * 64 + ".example", "a..example", "\u2488example", "x.\u00ad", "\u4609:@127.0.0.1"]
)
def test_an_invalid_host_raises_tool_error_or_forbidden_error(host: str, tmp_path: Path) -> None:
    """Python's resolver raises UnicodeError for such a host."""
    policy = Policy(("*",), Addresses(tmp_path / "none.json"))
    with pytest.raises((ToolError, ForbiddenError)):
        fetch(f"http://{host}/x", tmp_path / "file", policy, Settings())


def test_the_fetch_of_a_forbidden_url_raises_tool_error_or_forbidden_error(tmp_path: Path) -> None:
    """The policy allows none of these hosts. A user of a tool sees one of the two errors."""
    policy = Policy(("*",), Addresses(tmp_path / "none.json"))

    def check(url: str) -> None:
        if not is_numeric(url):
            return
        with pytest.raises((ToolError, ForbiddenError)):
            fetch(url, tmp_path / "file", policy, Settings())

    def make(random: Random) -> str:
        host = mutated_text(random, random.choice(("127.0.0.1", "[::1]", "a" * 63 + ".1")), _WORDS)
        return mutated_text(random, f"http://{host}:9/x", _WORDS)

    fuzz("fetches", make, check, cases=CASES // 3)


def is_numeric(url: str) -> bool:
    """Return whether no library sends a DNS query for the host in `url`."""
    try:
        socket.getaddrinfo(parse_url(url).host or "", 9, flags=socket.AI_NUMERICHOST)
    except OSError:
        return False
    except ValueError:  # no parser finds a host in the URL
        return True
    return True


def test_no_outbound_entry_makes_the_policy_raise(tmp_path: Path) -> None:
    """Operators write the entries by hand."""
    addresses = Addresses(tmp_path / "none.json")
    entries = ("example.com:443", "*.example.com", "10.0.0.0/8", "[::1]:80", "*", "localhost:8080")

    def check(entry: str) -> None:
        policy = Policy((entry,), addresses)
        for host in ("example.com", "10.0.0.1", "::1"):
            policy._is_listed(host, 443)
            if host != "example.com":
                policy._is_allowed(host, 443, ipaddress.ip_address(host))

    fuzz("outbound entries", lambda random: mutated_text(random, random.choice(entries), ("/", ":", "\u00b2")), check)


def test_an_addresses_file_is_valid_or_raises_settings_error(tmp_path: Path) -> None:
    """Operators edit the file."""
    file = tmp_path / "addresses.json"
    whole = json.dumps({"training": "http://127.0.0.1:8123", "import": "http://127.0.0.1:8124/"}).encode()

    def check(content: bytes) -> None:
        file.write_bytes(content)
        addresses = Addresses(file)
        try:
            addresses.containers()
        except SettingsError:
            return
        assert Policy((), addresses).resolve_container("https://example.com") == "https://example.com"
        with contextlib.suppress(ForbiddenError):
            Policy((), addresses).check_url("http://127.0.0.1:8123/x")

    def make(random: Random) -> bytes:
        if random.random() < 0.02:
            return b"[" * 100_000
        return mutated_bytes(random, whole, (odd_text(random).encode(errors="surrogatepass"), b"null", b"[", b"{"))

    fuzz("files of addresses", make, check)
