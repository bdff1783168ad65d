"""The errors that go over the wire, which documents and pages must name."""

from collections.abc import Iterator

from bonseyes_dagster import errors

__all__ = ["wire_errors"]


def wire_errors() -> Iterator[type[errors.BonseyesError]]:
    """Yield each error class that has an HTTP status, by status and code."""
    found = [getattr(errors, name) for name in errors.__all__]
    classes = [cls for cls in found if isinstance(cls, type) and issubclass(cls, errors.BonseyesError)]
    yield from sorted((cls for cls in classes if cls.http_status != 500), key=lambda cls: (cls.http_status, cls.code))
    yield errors.BonseyesError
