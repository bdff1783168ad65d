"""The table of routes: the target of each path and its kind."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bonseyes_dagster.errors import BadRequestError, NotFoundError
from bonseyes_dagster.gateway.routes import DAGSTER, ROUTES, match, rewrite_location

HOST = "127.0.0.1:8000"


@pytest.mark.parametrize(
    ("raw_path", "container", "path", "prefix"),
    [
        ("/", "dashboard", "/", ""),
        ("/pipelines", "dashboard", "/pipelines", ""),
        ("/containers", "dashboard", "/containers", ""),
        ("/containers/", "dashboard", "/containers/", ""),
        ("/containers/import", "import", "/", "/containers/import"),
        ("/containers/import/", "import", "/", "/containers/import"),
        ("/containers/import/artifacts/a/data/x%2Fy", "import", "/artifacts/a/data/x%2Fy", "/containers/import"),
        ("/containers/%69mport/healthz", "import", "/healthz", "/containers/import"),
        ("/containers/training-set//double", "training-set", "//double", "/containers/training-set"),
        ("/containers/visualization/data", "visualization", "/data", "/containers/visualization"),
        ("/dagster/graphql", DAGSTER, "/dagster/graphql", "/dagster"),
        ("/dagsterish", "dashboard", "/dagsterish", ""),
        ("/containersish/x", "dashboard", "/containersish/x", ""),
    ],
)
def test_a_path_matches_its_route(raw_path: str, container: str, path: str, prefix: str) -> None:
    """Prefixes end at a slash, and the target knows the stripped prefix."""
    target = match(raw_path)
    assert (target.container, target.path, target.prefix) == (container, path, prefix)
    assert target.redirect is None


@pytest.mark.parametrize("page", ["/dagster", "/containers/visualization"])
def test_a_page_without_its_slash_is_redirected(page: str) -> None:
    """Relative links of a page need the slash; routes of containers never redirect."""
    assert match(page).redirect == f"{page}/"


@pytest.mark.parametrize(
    "raw_path",
    [
        "/containers/import/../training",
        "/containers/import/%2e%2e/training",
        "/containers/import/..%2f..%2fdagster",
        "/containers/import/.%2e/x",
        "/containers/import/..%5cx",
        "/containers/../healthz",
        "/dagster/%2E%2E/containers",
        "/./x",
    ],
)
def test_a_path_with_dot_segments_is_refused(raw_path: str) -> None:
    """In plain form, percent-encoded, and with a backslash."""
    with pytest.raises(NotFoundError):
        match(raw_path)


@pytest.mark.parametrize("name", ["-x", "a..b", "a%2Fb", "%00", "a%20b", "x" * 129, "evil.com:80"])
def test_an_invalid_container_name_is_not_found(name: str) -> None:
    """The gateway must connect only to names of the project."""
    with pytest.raises(NotFoundError):
        match(f"/containers/{name}/x")


@pytest.mark.parametrize("raw_path", ["", "x", "http://evil/", "*"])
def test_a_target_without_a_leading_slash_is_a_bad_request(raw_path: str) -> None:
    """Also the absolute form for proxies: this gateway is not a proxy."""
    with pytest.raises(BadRequestError):
        match(raw_path)


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="?#"), max_size=40))
def test_no_upstream_path_has_dot_segments(text: str) -> None:
    """Every path is refused, or reaches the upstream without `.` and `..`."""
    try:
        target = match(f"/containers/import/{text}")
    except NotFoundError:
        return
    assert target.container == "import"
    assert target.path == f"/{text}"
    assert ".." not in target.path.split("/")


def test_the_table_is_complete_and_ordered() -> None:
    """The last route matches everything, a named container comes before any container, only Dagster has websockets."""
    assert ROUTES[-1].prefix == ""
    prefixes = [route.prefix for route in ROUTES]
    assert prefixes.index("/containers/visualization") < prefixes.index("/containers/{container}")
    assert [route.upstream for route in ROUTES if route.websockets] == [DAGSTER]
    assert "/dagster/graphql" in ROUTES[0].executes
    assert [route.upstream for route in ROUTES if route.serves_pages] == [DAGSTER, "visualization", "dashboard"]


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("/artifacts/a", "/containers/import/artifacts/a"),
        ("/containers/import/artifacts/a", "/containers/import/artifacts/a"),
        ("http://127.0.0.1:41001/artifacts/a?x=1", "/containers/import/artifacts/a?x=1"),
        ("http://import/artifacts/a", "/containers/import/artifacts/a"),
        ("http://127.0.0.1:8000/containers/import/artifacts/a", "http://127.0.0.1:8000/containers/import/artifacts/a"),
        ("http://127.0.0.1:8000/dagster/graphql?query=x", None),
        ("http://elsewhere.org/a", None),
        ("http://[", None),
        ("//elsewhere.org/a", None),
        ("/../../dagster/", None),
        ("/%2E./x", None),
        ("a/b", None),
    ],
)
def test_a_location_leads_back_through_the_gateway(location: str, expected: str | None) -> None:
    """A client cannot use the upstream's own address; a prefix must not appear twice."""
    assert rewrite_location(location, match("/containers/import/artifacts"), "http://127.0.0.1:41001", HOST) == expected


def test_a_location_of_an_unstripped_route_stays() -> None:
    """Dagster knows its own prefix."""
    for location in ("http://elsewhere.org/a", "http://[", "a/b"):
        assert rewrite_location(location, match("/dagster/x"), "http://127.0.0.1:1", HOST) == location
    assert rewrite_location("/dagster/runs", match("/dagster/x"), "http://127.0.0.1:1", HOST) == "/dagster/runs"
