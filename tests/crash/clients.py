"""Clients that send random requests, and write down their requests and answers."""

from __future__ import annotations

import json
import random
import re
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any

import requests

from tests.contract.tools.server import ToolServer
from tests.crash.history import UNKNOWN, Event, History, answer_of
from tests.crash.tool.careful import content, expected

__all__ = ["Client", "ClientGroup", "parameters_of"]

_LONGEST_WAIT_S = 1.0
_PAUSE_S = 0.05
_MOST_WAITING = 30
# A crashing container may give these answers, or close the connection.
_LATER = frozenset({503})


def parameters_of(token: str, ledger: Path, random_: random.Random) -> dict[str, Any]:
    """Return parameters for `token`; the duration and the child processes are random."""
    seconds = random_.choice([0, 0, 0, 0.02, 0.2])
    return {"text": token, "ledger": str(ledger), "seconds": seconds, "family": random_.random() < 0.1}


@dataclass(slots=True)
class ClientGroup:
    """The state that all clients share."""

    server: ToolServer
    history: History
    ledger: Path
    goal: int
    created: int = 0
    recent: deque[str] = field(default_factory=lambda: deque(maxlen=30))
    stop: threading.Event = field(default_factory=threading.Event)
    errors: list[BaseException] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def next_number(self) -> int | None:
        """Return the number of the next creation, or None after the last one."""
        with self._lock:
            if self.created >= self.goal:
                return None
            self.created += 1
            return self.created

    def is_busy(self) -> bool:
        """Tell whether the queue is so long that more creations would not be made in time."""
        answer, _, _ = answer_of("GET", f"{self.server.url}/metrics")
        found = re.search(r"queue_length (\d+)", answer.text) if answer is not None else None
        return found is None or int(found[1]) > _MOST_WAITING


class Client(threading.Thread):
    """One client; it sends one request after the other."""

    def __init__(self, group: ClientGroup, seed: int) -> None:
        super().__init__(name=f"client {seed}")
        self._group = group
        self._random = random.Random(seed)
        self._url = f"{group.server.url}/artifacts"

    def run(self) -> None:
        """Create artifacts until the goal, with other requests between the creations."""
        try:
            while not self._group.stop.is_set():
                if self._group.is_busy():
                    self._ask()
                    time.sleep(_PAUSE_S)
                    continue
                number = self._group.next_number()
                if number is None:
                    return
                self._create_one(number)
                for _ in range(self._random.choice([0, 1, 2, 3])):
                    self._ask()
        except BaseException as error:
            self._group.errors.append(error)
            raise

    # Creating

    def _create_one(self, number: int) -> None:
        """Create one artifact; repeat the request with the same key until there is an answer."""
        # Several clients use some names at the same moment.
        name = f"shared{number // 4}" if self._random.random() < 0.3 else f"n{number}"
        token = f"t{number}"
        parameters = parameters_of(token, self._group.ledger, self._random)
        upload = content(token, 5000) if self._random.random() < 0.3 else None
        key = token if self._random.random() < 0.8 else None
        self._group.recent.append(name)
        for _ in range(100):
            outcome = self.create(name, parameters, upload=upload, key=key)
            if outcome != UNKNOWN or key is None or self._group.stop.is_set():
                return
            time.sleep(_PAUSE_S)

    def create(self, name: str, parameters: dict[str, Any], *, upload: bytes | None, key: str | None) -> str:
        """Send one creation; return its outcome."""
        headers = {"Idempotency-Key": key} if key else {}
        parts = {"name": (None, name), "data": (None, json.dumps(parameters))}
        if upload is not None:
            parts["upload"] = ("upload", upload)  # type: ignore[assignment]
        self._group.history.begin("create", name, parameters["text"], is_keyed=key is not None)
        answer, start, end = answer_of("POST", self._url, files=parts, headers=headers)
        outcome = self._outcome(answer, {200: "ok", 409: "conflict"}, f"create {name}")
        end = inf if outcome == UNKNOWN else end
        self._add(Event("create", name, start, end, outcome, parameters["text"], key is not None))
        return outcome

    def _outcome(self, answer: requests.Response | None, known: dict[int, str], what: str) -> str:
        if answer is None or answer.status_code in _LATER:
            return UNKNOWN
        if answer.status_code in known:
            return known[answer.status_code]
        self._group.history.add_wrong_answer(f"{what} was answered {answer.status_code}: {answer.text[:300]}")
        return UNKNOWN

    def _add(self, event: Event) -> None:
        self._group.history.add(event)

    # Everything else

    def _ask(self) -> None:
        if not self._group.recent:
            return
        name = self._random.choice(list(self._group.recent))
        kinds = [self.get, self.get, self._wait, self.read, self.read, self._cancel, self.delete, self._names]
        if self._random.choice(kinds)(name) == UNKNOWN:
            time.sleep(_PAUSE_S)

    def get(self, name: str) -> str:
        """Get all facts about an artifact."""
        answer, start, end = answer_of("GET", f"{self._url}/{name}")
        outcome = self._outcome(answer, {200: "ok", 404: "missing"}, f"get {name}")
        if outcome == UNKNOWN or answer is None:
            return outcome
        body = answer.json()
        token = body["parameters"]["text"] if outcome == "ok" else None
        phase = body["status"]["phase"] if outcome == "ok" else None
        self._add(Event("get", name, start, end, outcome, token, phase=phase))
        return outcome

    def _wait(self, name: str) -> str:
        wait_s = self._random.uniform(0, _LONGEST_WAIT_S)
        return self._status("get", "GET", name, f"status?wait={wait_s:.2f}")

    def _cancel(self, name: str) -> str:
        return self._status("cancel", "POST", name, "cancel")

    def _status(self, kind: str, method: str, name: str, path: str) -> str:
        answer, start, end = answer_of(method, f"{self._url}/{name}/{path}")
        outcome = self._outcome(answer, {200: "ok", 404: "missing"}, f"{path} of {name}")
        if outcome == UNKNOWN or answer is None:
            return outcome
        phase = answer.json()["phase"] if outcome == "ok" else None
        self._add(Event(kind, name, start, end, outcome, phase=phase))
        return outcome

    def delete(self, name: str) -> str:
        """Delete once; without an answer it is unknown whether the deletion took effect."""
        self._group.history.begin("delete", name)
        answer, start, end = answer_of("DELETE", f"{self._url}/{name}")
        outcome = self._outcome(answer, {200: "ok", 404: "missing"}, f"delete {name}")
        self._add(Event("delete", name, start, inf if outcome == UNKNOWN else end, outcome))
        return outcome

    def read(self, name: str) -> str:
        """Read a file; its content must follow from the text of the artifact."""
        answer, start, end = answer_of("GET", f"{self._url}/{name}/data/part1/file")
        outcome = self._outcome(answer, {200: "ok", 404: "missing"}, f"read {name}")
        if outcome == UNKNOWN or answer is None:
            return outcome
        if outcome == "missing":
            is_there = answer.json()["error"]["code"] == "not_ready"
            kind, outcome = ("not-ready", "ok") if is_there else ("get", "missing")
            self._add(Event(kind, name, start, end, outcome))
            return outcome
        self._add(Event("get", name, start, end, "ok", self._token_of(name, answer.content), phase="completed"))
        return outcome

    def _token_of(self, name: str, data: bytes) -> str:
        """Return the token of the creation whose data this is; every token of this name is known by now."""
        tokens = {str(e.token) for e in list(self._group.history.events) if e.kind == "create" and e.name == name}
        # The creation that made it may still wait for its answer.
        number = int(name.removeprefix("shared").removeprefix("n"))
        close = range(number * 4, number * 4 + 4) if name.startswith("shared") else [number]
        for token in (*tokens, *(f"t{n}" for n in close)):
            if data == expected(token)["part1/file"]:
                return token
        self._group.history.add_wrong_answer(f"{name} was served with content that nobody asked for: {data[:80]!r}")
        return "nobody's"

    def _names(self, _: str) -> str:
        answer, start, end = answer_of("GET", self._url)
        outcome = self._outcome(answer, {200: "ok"}, "list")
        if outcome == "ok" and answer is not None:
            self._add(Event("names", "", start, end, "ok", names=tuple(answer.json())))
        return outcome
