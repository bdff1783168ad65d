"""Errors over HTTP: the client raises the same class that the server raised."""

import pytest

from bonseyes_dagster import errors


@pytest.mark.parametrize("cls", sorted(errors._BY_CODE.values(), key=lambda cls: cls.code))
def test_an_error_survives_http(cls: type[errors.BonseyesError]) -> None:
    """Code, message, detail and request id come back as the same exception."""
    sent = cls("a sentence", detail={"size": "must be positive"})
    got = errors.error_from_json(cls.http_status, sent.to_json("r-1"))
    assert type(got) is cls
    assert (got.message, got.detail, got.request_id) == ("a sentence", {"size": "must be positive"}, "r-1")


@pytest.mark.parametrize(
    ("http_status", "cls"), [(404, "NotFoundError"), (503, "UnavailableError"), (418, "BonseyesError")]
)
@pytest.mark.parametrize("body", [None, "<html>", {"error": "text"}, {"error": {"code": "unheard_of"}}, []])
def test_any_body_becomes_an_error(http_status: int, cls: str, body: object) -> None:
    """The answer of a proxy becomes the right exception, too, by its status."""
    assert type(errors.error_from_json(http_status, body)).__name__ == cls


def test_the_tree_in_the_docstring_is_the_tree_in_the_code() -> None:
    """The docstring of the module lists every class, status and code."""
    drawing = errors.__doc__ or ""
    for cls in errors._BY_CODE.values():
        line = next(line for line in drawing.splitlines() if f" {cls.__name__} " in f"{line} ")
        assert f" {cls.http_status} " in line
        assert f" {cls.code}" in line
