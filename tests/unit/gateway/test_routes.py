"""The table of routes: which path goes where, and as what."""

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
def test_a_path_goes_where_the_table_says(raw_path: str, container: str, path: str, prefix: str) -> None:
    """Prefixes end at a slash, and what is stripped is told."""
    target = match(raw_path)
    assert (target.container, target.path, target.prefix) == (container, path, prefix)
    assert target.redirect is None


@pytest.mark.parametrize("page", ["/dagster", "/containers/visualization"])
def test_a_page_without_its_slash_is_redirected(page: str) -> None:
    """Relative links of a page need the slash; containers never redirect."""
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
def test_no_path_climbs_out_of_its_prefix(raw_path: str) -> None:
    """Not in plain, not percent-encoded, not with a backslash."""
    with pytest.raises(NotFoundError):
        match(raw_path)


@pytest.mark.parametrize("name", ["-x", "a..b", "a%2Fb", "%00", "a%20b", "x" * 129, "evil.com:80"])
def test_what_cannot_be_a_container_is_not_found(name: str) -> None:
    """So that nothing but a name of the project ever becomes a host to connect to."""
    with pytest.raises(NotFoundError):
        match(f"/containers/{name}/x")


@pytest.mark.parametrize("raw_path", ["", "x", "http://evil/", "*"])
def test_a_target_that_is_no_path_is_a_bad_request(raw_path: str) -> None:
    """A proxy's absolute form among them: this gateway is none."""
    with pytest.raises(BadRequestError):
        match(raw_path)


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="?#"), max_size=40))
def test_what_reaches_an_upstream_never_climbs(text: str) -> None:
    """Any path is refused, or arrives as a path without a climbing segment."""
    try:
        target = match(f"/containers/import/{text}")
    except NotFoundError:
        return
    assert target.container == "import"
    assert target.path == f"/{text}"
    assert ".." not in target.path.split("/")


def test_the_table_is_complete_and_ordered() -> None:
    """The last route takes everything, the named container comes before any container, only Dagster has sockets."""
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
    """The upstream's own address means nothing to a client; a prefix that is there already is not put twice."""
    assert rewrite_location(location, match("/containers/import/artifacts"), "http://127.0.0.1:41001", HOST) == expected


def test_a_location_of_an_unstripped_route_stays() -> None:
    """Dagster knows its own prefix."""
    for location in ("http://elsewhere.org/a", "http://[", "a/b"):
        assert rewrite_location(location, match("/dagster/x"), "http://127.0.0.1:1", HOST) == location
    assert rewrite_location("/dagster/runs", match("/dagster/x"), "http://127.0.0.1:1", HOST) == "/dagster/runs"
