"""Compare the claims of artifacts with the truth: version, parameters and inputs must give the result."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import requests

from tests.crash.code_files import CodeFiles, Content

__all__ = ["Claims", "Fact", "Request"]

_REQUEST_S = 60


class UnreadableError(Exception):
    """The container does not serve an artifact that it calls completed."""


@dataclass(frozen=True, slots=True)
class Request:
    """The input of an artifact; `dataset` is the content of its input artifact."""

    text: str
    seconds: float = 0
    upload: str | None = None
    dataset_name: str | None = None
    dataset: bytes | None = None

    @property
    def parameters(self) -> dict[str, Any]:
        """Return the parameters in the form of the request."""
        sent: dict[str, Any] = {"text": self.text, "seconds": self.seconds}
        return {**sent, "dataset": f"layers/{self.dataset_name}"} if self.dataset_name else sent

    @property
    def meaning(self) -> tuple[object, ...]:
        """Return everything except the code that the result depends on."""
        return self.text, self.seconds, self.upload, self.dataset

    def expected(self, content: Content) -> dict[str, Any]:
        """Return the expected output files for this code, parsed."""
        result = {"code": dict(content), "text": self.text, "upload": self.upload or ""}
        return {"result.json": result} | ({"dataset.json": json.loads(self.dataset)} if self.dataset else {})


@dataclass(frozen=True, slots=True)
class Fact:
    """The observed properties of a completed artifact, which never change."""

    version: str
    parameters: Mapping[str, Any]
    digest: str
    files: Mapping[str, bytes]
    code_changed: bool


@dataclass(slots=True)
class Claims:
    """Everything that one tool ever reported."""

    url: str
    code: CodeFiles
    contents: dict[str, Content] = field(default_factory=dict)
    """The code of each version."""
    facts: dict[str, Fact] = field(default_factory=dict)
    requests: dict[str, Request] = field(default_factory=dict)

    def add_version(self, version: str, content: Content, witness: str) -> Iterator[str]:
        """Add the code of a version as `witness` reports it; yield faults: one version must have one code."""
        known = self.contents.setdefault(version, content)
        if known != content:
            yield f"{witness} claims version {version}, which is {dict(known)}, and is of {dict(content)}"
        for other, same in self.contents.items():
            if other != version and same == content:
                yield f"{witness} claims version {version}; the same code was version {other}"

    def check(self, name: str, *, is_undisturbed: bool) -> Iterator[str]:
        """Check one artifact; yield its faults."""
        answer = requests.get(f"{self.url}/artifacts/{name}", timeout=_REQUEST_S)
        if answer.status_code != 200:
            yield f"{name} is lost: it is answered with {answer.status_code}: {answer.text[:100]}"
            self.forget(name)
            return
        info = answer.json()
        status = info["status"]
        if status["phase"] != "completed":
            if name in self.facts or is_undisturbed:
                yield f"{name} is {status['phase']} and must be completed: {status['reason']}"
            self.forget(name)
            return
        yield from self._check_fact(name, info, is_undisturbed=is_undisturbed)

    def _check_fact(self, name: str, info: Mapping[str, Any], *, is_undisturbed: bool) -> Iterator[str]:
        try:
            fact = self._read(name, info)
        except UnreadableError as error:
            yield f"{name} is completed and cannot be read: {error}"
            self.forget(name)
            return
        former = self.facts.get(name, fact)
        if name not in self.facts:
            # Check it now: later another artifact may have the name of the source.
            yield from self._check_source(name, info["status"].get("reused_from"), fact)
        self.facts[name] = fact
        if fact != former:
            yield f"{name} was {_short(former)} and is {_short(fact)}"
        if fact.code_changed and is_undisturbed:
            yield f"{name} says that the code changed, but nobody touched it"
        if not fact.code_changed:
            yield from self._check_content(name, fact)

    def _read(self, name: str, info: Mapping[str, Any]) -> Fact:
        manifest = json.loads(self._get(f"{name}/files"))
        files = {each["path"]: self._get(f"{name}/data/{each['path']}") for each in manifest}
        is_marked = bool(info.get("code_changed") or info["status"].get("code_changed"))
        return Fact(info["provenance"]["version"], info["parameters"], info["digest"], files, is_marked)

    def _get(self, path: str) -> bytes:
        answer = requests.get(f"{self.url}/artifacts/{path}", timeout=_REQUEST_S)
        if answer.status_code != 200:
            raise UnreadableError(f"{path} is answered with {answer.status_code}: {answer.text[:100]}")
        return answer.content

    def _check_source(self, name: str, source: str | None, fact: Fact) -> Iterator[str]:
        known = self.facts.get(source or "")
        if known is not None and known.code_changed:
            yield f"{name} is re-used from {source}, whose code had changed"
        if known is not None and known.digest != fact.digest:
            yield f"{name} is re-used from {source} and has another digest"

    def _check_content(self, name: str, fact: Fact) -> Iterator[str]:
        try:
            found = {path: json.loads(data) for path, data in fact.files.items()}
            content: Content = tuple(sorted(found["result.json"]["code"].items()))
        except (ValueError, KeyError, TypeError):
            yield f"{name} holds {_short(fact.files)}"
            return
        if content not in self.code.seen:
            yield f"{name} was made by {dict(content)}, which was never on the disk at once"
            return
        wrong = list(self.add_version(fact.version, content, name))
        yield from wrong
        wanted = self.requests[name].expected(self.contents[fact.version])
        if found != wanted and not wrong:
            yield f"{name} of version {fact.version} holds {_short(found)} and must hold {_short(wanted)}"

    def sources(self, version: str, request: Request) -> list[str]:
        """Return the artifacts that such a request can re-use."""
        return [
            name
            for name, fact in self.facts.items()
            if fact.version == version and not fact.code_changed and self.requests[name].meaning == request.meaning
        ]

    def forget(self, name: str) -> None:
        """Forget an artifact that was deleted or never completed."""
        self.facts.pop(name, None)
        self.requests.pop(name, None)


def _short(value: object) -> str:
    return textwrap.shorten(str(value), 500)
