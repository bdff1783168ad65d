"""Edits of a tool's code while it works, with restarts, re-uses and losses of the index: every result stays right."""

from __future__ import annotations

import random
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import requests

from tests.crash.claims import Request
from tests.crash.edited_tool import EditedTool, edited_tools
from tests.crash.scale import EDITS, seeded
from tests.waiting import until

pytestmark = pytest.mark.slow

_MOST_WRONG = 20
_MOST_ARTIFACTS = 40
_WEIGHTS = {
    "edit": 30,
    "restart": 12,
    "kill": 4,
    "start_during_edit": 3,
    "create": 20,
    "create_ten": 12,
    "edit_during": 10,
    "delete": 8,
    "spoil_index": 6,
}


class Campaign:
    """Random operations on two tools; after each one, the claims of the tools are checked."""

    def __init__(self, tools: list[EditedTool], folder: Path, random_: random.Random) -> None:
        self._tools = tools
        self._random = random_
        self._saved = folder / "saved"
        self._number = 0
        self.done: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.story: list[str] = []
        self._reported: set[str] = set()

    def execute(self) -> None:
        """Run the operations in random order; stop after too many faults."""
        for tool in self._tools:
            self.wrong += tool.start()
        for number in range(EDITS):
            tool = self._random.choice(self._tools)
            [kind] = self._random.choices([*_WEIGHTS], [*_WEIGHTS.values()])
            self.done[kind] += 1
            self.story.append(f"{number}: {kind} {tool.name}")
            # Report each fault once.
            found = [each for each in self._operate(kind, tool) if each not in self._reported]
            self._reported.update(found)
            self.wrong += [f"after {self.story[-1]}: {each}" for each in found]
            if len(self.wrong) >= _MOST_WRONG or not tool.server.container.is_healthy():
                return

    def _operate(self, kind: str, tool: EditedTool) -> Iterator[str]:
        try:
            yield from getattr(self, f"_{kind}")(tool)
            yield from tool.check(at_all=tool.is_interrupted)
            yield from tool.check_unexpected()
        except (AssertionError, psutil.Error, requests.RequestException) as error:
            yield f"{tool.name}: {error}"

    def _note(self, what: str) -> None:
        self.story[-1] += f" {what}"

    # Editing and restarting

    def _edit(self, tool: EditedTool) -> Iterator[str]:
        tool.is_undisturbed = False
        loaded = tool.claims.contents.get(tool.version())
        self._note(tool.code.edit(self._random))
        if loaded is not None and loaded != tool.code.content() and self._random.random() < 0.2:
            try:
                until(tool.says_code_changed, 30)
            except AssertionError:
                yield f"GET / of {tool.name} does not say that its code has changed"

    def _restart(self, tool: EditedTool) -> Iterator[str]:
        tool.stop(by_force=False)
        yield from tool.start()
        if tool.says_code_changed():
            yield f"GET / of {tool.name} says right after the start that its code has changed"

    def _kill(self, tool: EditedTool) -> Iterator[str]:
        if self._random.random() < 0.7:
            tool.create_at_once([(self._name(), self._request(tool)) for _ in range(3)])
        tool.stop(by_force=True)
        yield from tool.start()

    def _start_during_edit(self, tool: EditedTool) -> Iterator[str]:
        tool.stop(by_force=False)
        pause_s = self._random.uniform(0, 1)

        def edit() -> None:
            time.sleep(pause_s)
            self._note(tool.code.edit(self._random))

        tool.start_while(threading.Thread(target=edit))
        yield from ()

    # Creating and deleting

    def _create(self, tool: EditedTool) -> Iterator[str]:
        name = self._name()
        tool.create(name, self._request(tool), reuse=self._random.random() < 0.8)
        self._note(name)
        yield from ()

    def _create_ten(self, tool: EditedTool) -> Iterator[str]:
        """Ten equal requests at once are computed once, or not at all if an equal result exists."""
        request = self._request(tool)
        names = [self._fresh_name() for _ in range(10)]
        self._note(f"{names[0]} to {names[-1]}")
        sources = tool.claims.sources(tool.version(), request)
        tool.create_at_once([(name, request) for name in names])
        tool.wait_until_final()
        begun = tool.computations()
        made = [name for name in names if begun[name]]
        wanted = 0 if sources else 1
        if tool.is_undisturbed and len(made) != wanted:
            yield f"{tool.name} computed {made} for ten equal requests; there was {sources} already"

    def _edit_during(self, tool: EditedTool) -> Iterator[str]:
        """Edit while an artifact is made, and sometimes restore all files before it ends."""
        tool.is_undisturbed = False
        before = tool.code.content()
        name = self._fresh_name()
        tool.create(name, self._request(tool, seconds=0.3), reuse=True)
        tool.wait_until_working(name)
        self._note(f"{name} {tool.code.edit(self._random)}")
        if self._random.random() < 0.6:
            time.sleep(self._random.choice([0, 0.2, 0.4]))
            tool.code.restore(before)
            self._note("and back")
        yield from ()

    def _delete(self, tool: EditedTool) -> Iterator[str]:
        there = list(tool.claims.facts)
        many = max(1, len(there) - _MOST_ARTIFACTS)
        for name in self._random.sample(there, min(many, len(there))):
            tool.delete(name)
        yield from ()

    def _spoil_index(self, tool: EditedTool) -> Iterator[str]:
        """Lose, restore or damage the index while the container is down; the start brings all artifacts back."""
        tool.stop(by_force=self._random.random() < 0.5)
        saved = self._saved / tool.name
        acts = {
            "lose": tool.index.lose,
            "lose_main": tool.index.lose_main,
            "empty": tool.index.empty,
            "zero": lambda: tool.index.zero(self._random.randrange(tool.index.pages)),
            "truncate": lambda: tool.index.truncate(self._random.randrange(tool.index.pages)),
            "put_back": lambda: tool.index.put_back(saved),
        }
        act = self._random.choice([each for each in acts if each != "put_back" or saved.exists()])
        self._note(act)
        earlier = saved.with_name(f"{tool.name}-now")
        tool.index.save(earlier)
        acts[act]()
        shutil.rmtree(saved, ignore_errors=True)
        earlier.rename(saved)
        yield from tool.start()

    def _fresh_name(self) -> str:
        self._number += 1
        return f"n{self._number}"

    def _name(self) -> str:
        # Use some names again after their deletion.
        there = {name for tool in self._tools for name in tool.claims.requests}
        free = sorted({name for tool in self._tools for name in tool.deleted} - there)
        return self._random.choice(free) if free and self._random.random() < 0.2 else self._fresh_name()

    def _request(self, tool: EditedTool, seconds: float = 0) -> Request:
        text = self._random.choice("pqr")
        if tool.name == "layers":
            return Request(text, seconds, upload=self._random.choice([None, "one", "two"]))
        datasets = self._tools[0].claims.facts
        if not datasets or self._random.random() < 0.5:
            return Request(text, seconds)
        name = self._random.choice(list(datasets))
        return Request(text, seconds, dataset_name=name, dataset=datasets[name].files["result.json"])


@pytest.mark.timeout(0)
def test_results_stay_right_under_random_edits(tmp_path: Path) -> None:
    """Every result comes from the code of its version, and a re-use never spreads a wrong result."""
    random_, began = seeded(), time.monotonic()
    with edited_tools(tmp_path) as tools:
        campaign = Campaign(tools, tmp_path, random_)
        campaign.execute()
        took_s = time.monotonic() - began
        print(f"{campaign.done.total()} operations {dict(campaign.done)}; {len(campaign.wrong)} wrong; {took_s:.0f} s")
        assert not campaign.wrong, "\n".join([*campaign.wrong[:_MOST_WRONG], *campaign.story[-30:]])
