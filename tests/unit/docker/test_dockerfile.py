"""The bases and the user of an image are read from its Dockerfile as Docker reads it."""

from __future__ import annotations

from pathlib import Path

import pytest

from bonseyes_dagster.docker.compose.dockerfile import bases_of, environment_of, has_healthcheck, user_of
from bonseyes_dagster.errors import SettingsError

STAGES = r"""
# comment FROM nowhere
ARG VERSION=latest OUTER="outer:${VERSION}"
FROM ${OUTER} AS first
ARG VERSION=ignored
RUN echo FROM inside
FROM --platform=linux/amd64 base/$VERSION as second
COPY --from=first /a /b
USER root
RUN echo USER nobody
USER 10001:10001
FROM second AS third
COPY --chown=1:1 \
  --from=tools:1 /a /b
RUN --mount=type=bind,from=mounted:2,target=/m true
FROM scratch AS nothing
FROM third
user root
"""


@pytest.fixture
def stages(tmp_path: Path) -> Path:
    """Make a Dockerfile with five stages."""
    file = tmp_path / "Dockerfile"
    file.write_text(STAGES)
    return file


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("first", {"outer:latest"}),
        ("second", {"base/latest", "outer:latest"}),
        ("third", {"base/latest", "outer:latest", "tools:1", "mounted:2"}),
        ("nothing", set()),
        (None, {"base/latest", "outer:latest", "tools:1", "mounted:2"}),
    ],
)
def test_bases_of_a_stage_include_those_of_its_stages(stages: Path, target: str | None, expected: set[str]) -> None:
    """They also come through copies and mounts; the default is the last stage."""
    assert bases_of(stages, {}, target) == expected


def test_build_arguments_replace_defaults(stages: Path) -> None:
    """They also count inside another default; an argument that the file does not declare is ignored."""
    assert bases_of(stages, {"VERSION": "7", "OTHER": "x"}, "second") == {"outer:7", "base/7"}
    assert bases_of(stages, {"OUTER": "mine"}, "first") == {"mine"}


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("first", (None, "outer:latest")),
        ("second", ("10001:10001", "base/latest")),
        ("third", ("10001:10001", "base/latest")),
        ("nothing", (None, "scratch")),
        (None, ("root", "third")),
    ],
)
def test_user_of_a_stage_is_its_last_user(stages: Path, target: str | None, expected: tuple[str | None, str]) -> None:
    """Without a USER it is the user of its base stage, never that of a stage it copies from."""
    assert user_of(stages, {}, target) == expected


@pytest.mark.parametrize(
    ("text", "target", "message"),
    [
        ("FROM x AS y", "z", "no stage 'z'"),
        ("RUN true", None, "no FROM"),
        ("FROM ${NONE:?which}", None, "NONE must be set: which"),
    ],
)
def test_error_of_a_dockerfile_names_the_file(tmp_path: Path, text: str, target: str | None, message: str) -> None:
    """A project has many Dockerfiles."""
    file = tmp_path / "Dockerfile"
    file.write_text(text)
    with pytest.raises(SettingsError, match=f"Dockerfile.*{message}"):
        bases_of(file, {}, target)
    with pytest.raises(SettingsError, match="cannot be read"):
        bases_of(tmp_path / "none", {})


def test_environment_has_the_last_value_of_each_variable(tmp_path: Path) -> None:
    """Both forms of ENV count, quotes and continued lines included."""
    file = tmp_path / "Dockerfile"
    file.write_text(
        'FROM a\n# ENV BONSEYES_TOOL=/commented\nENV BONSEYES_TOOL=/first OTHER="a b"\nFROM a\n'
        "ENV \\\n\n  BONSEYES_TOOL=/second\nENV OLD form of it\nRUN echo ENV BONSEYES_TOOL=/echoed\n"
    )
    assert environment_of(file) == {"BONSEYES_TOOL": "/second", "OTHER": "a b", "OLD": "form of it"}


@pytest.mark.parametrize(
    ("lines", "is_set"),
    [
        ("HEALTHCHECK CMD true", True),
        ("HEALTHCHECK none", False),
        ("HEALTHCHECK CMD true\nHEALTHCHECK NONE", False),
        ("# HEALTHCHECK CMD true", False),
        ("healthcheck --interval=1s \\\n  CMD true", True),
    ],
)
def test_health_check_is_found(tmp_path: Path, lines: str, is_set: bool) -> None:
    """The last instruction counts."""
    file = tmp_path / "Dockerfile"
    file.write_text(f"FROM a\n{lines}\n")
    assert has_healthcheck(file) is is_set


def test_tabs_separate_words(tmp_path: Path) -> None:
    """Docker takes any white space."""
    file = tmp_path / "Dockerfile"
    file.write_text("FROM\tpython:3\nUSER\t1000\nENV\tA=1\n")
    assert (bases_of(file, {}), user_of(file, {})) == ({"python:3"}, ("1000", "python:3"))
    assert environment_of(file) == {"A": "1"}


def test_the_last_line_may_be_continued(tmp_path: Path) -> None:
    """Docker reads such an instruction to the end of the file."""
    file = tmp_path / "Dockerfile"
    file.write_text("FROM a\nUSER 1000 \\")
    assert user_of(file, {}) == ("1000", "a")


def test_from_without_an_image_is_an_error(tmp_path: Path) -> None:
    """It has the file and the line."""
    file = tmp_path / "Dockerfile"
    file.write_text("FROM --platform=linux/amd64\n")
    with pytest.raises(SettingsError, match="Dockerfile: The line FROM --platform=linux/amd64 names no image"):
        bases_of(file, {})
