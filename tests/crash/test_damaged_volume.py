"""The index of a container is lost, old or damaged, or files rot: no artifact is lost, and no wrong data spreads."""

from __future__ import annotations

import random
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import requests

from tests.crash.claims import Request
from tests.crash.edited_tool import EditedTool, edited_tools
from tests.crash.scale import DAMAGES, seeded

pytestmark = [pytest.mark.slow, pytest.mark.timeout(0)]
_MOST_WRONG = 20
# This text is so long that the rows of a few artifacts fill some pages.
_LONG = "long " * 200


def request_of(number: int) -> Request:
    """Return one of a few requests, so that some artifacts are re-used."""
    return Request(f"{_LONG}{number % 8}", upload=f"upload {number % 3}" if number % 2 else None)


# The index


class DamagedIndex:
    """A volume with artifacts of all kinds; it is restored before each damage to its index."""

    def __init__(self, tool: EditedTool, folder: Path, random_: random.Random) -> None:
        self._tool = tool
        self._whole = folder / "whole"
        self._old = folder / "old"
        self._random = random_
        self.done: Counter[str] = Counter()

    def prepare(self) -> list[str]:
        """Fill the volume, half of it after the index was saved; return the faults so far."""
        tool = self._tool
        wrong = list(tool.start())
        for number in range(10):
            tool.create(f"n{number}", request_of(number), reuse=True)
            tool.wait_until_final()
        wrong += tool.check(at_all=True)
        tool.stop(by_force=False)
        tool.index.save(self._old)
        tool.server.start()
        for name in ("n0", "n3"):
            tool.delete(name)
        for name in ("n3", *(f"n{number}" for number in range(10, 16))):
            tool.create(name, request_of(int(name[1:]) + 1), reuse=True)
        wrong += tool.check(at_all=True)
        tool.create("interrupted", Request("interrupted", seconds=300, upload="kept"), reuse=False)
        tool.wait_until_working("interrupted")
        tool.stop(by_force=True)
        tool.claims.forget("interrupted")
        tool.new.clear()
        tool.index.merge()
        subprocess.run(["cp", "-a", tool.volume, self._whole], check=True)
        return wrong

    def ways(self) -> list[tuple[str, Callable[[], None]]]:
        """Return ways to damage the index; damages of single pages are sampled."""
        index = self._tool.index
        by_page: list[tuple[str, Callable[[], None]]] = []
        for page in range(index.pages):
            by_page += [
                (f"zero {page}", lambda page=page: index.zero(page)),  # type: ignore[misc]
                (f"truncate {page}", lambda page=page: index.truncate(page)),  # type: ignore[misc]
                (f"flip {page}", lambda page=page: index.flip(page, self._random)),  # type: ignore[misc]
            ]
        ways = [("lose", index.lose), ("empty", index.empty), ("old", lambda: index.put_back(self._old))]
        return [*ways, *self._random.sample(by_page, min(3 * DAMAGES, len(by_page)))]

    def damage(self, what: str, act: Callable[[], None]) -> Iterator[str]:
        """Restore the volume, damage its index, start, and yield the faults."""
        tool = self._tool
        self.done[what.split()[0]] += 1
        shutil.rmtree(tool.volume)
        subprocess.run(["cp", "-a", self._whole, tool.volume], check=True)
        folders = {path.name for path in (tool.volume / "artifacts").iterdir()}
        act()
        is_sound = tool.index.is_sound(self._whole.with_name("copy"))
        facts, requests_ = dict(tool.claims.facts), dict(tool.claims.requests)
        try:
            yield from tool.start()
            yield from tool.check(at_all=True)
            tool.server.stop()
            yield from self._lost_folders(folders)
            if not is_sound and not tool.index.kept():
                yield "the damaged index was not kept"
        except (AssertionError, psutil.Error, requests.RequestException) as error:
            yield str(error)
        finally:
            tool.claims.facts, tool.claims.requests = facts, requests_
            tool.server.end()

    def _lost_folders(self, folders: set[str]) -> Iterator[str]:
        there = [path.name for path in self._tool.volume.glob("artifacts/*")]
        aside = [path.name for path in self._tool.volume.glob("lost+found/**")]
        for folder in folders:
            if not any(folder in name for name in (*there, *aside)):
                yield f"the folder {folder} was removed"


def test_damaged_index_loses_no_completed_artifact(tmp_path: Path) -> None:
    """After any damage every completed artifact is unchanged, and no folder is removed."""
    random_, began = seeded(), time.monotonic()
    with edited_tools(tmp_path) as (tool, _):
        campaign = DamagedIndex(tool, tmp_path, random_)
        wrong = campaign.prepare()
        for what, act in campaign.ways():
            wrong += [f"after {what}: {each}" for each in campaign.damage(what, act)]
            if len(wrong) >= _MOST_WRONG:
                break
    print(f"{dict(campaign.done)} of {len(tool.claims.facts)} artifacts; {time.monotonic() - began:.0f} s")
    assert not wrong, "\n".join(wrong[:_MOST_WRONG])


# Data and manifests


class RottenFiles:
    """Published files and manifests in which one byte changes."""

    def __init__(self, layers: EditedTool, script: EditedTool, random_: random.Random) -> None:
        self._layers = layers
        self._script = script
        self._random = random_
        self._number = 0
        self.done: Counter[str] = Counter()

    def prepare(self) -> list[str]:
        """Start, and make some artifacts, also re-used ones."""
        wrong = [*self._layers.start(), *self._script.start()]
        for number in range(8):
            self._layers.create(self._name(), request_of(number % 4), reuse=True)
            self._layers.wait_until_final()
        return [*wrong, *self._layers.check(at_all=True)]

    def spoil_one(self, kind: str) -> Iterator[str]:
        """Change a byte of an artifact, repeat its request, and use it as input; yield the faults."""
        layers = self._layers
        self.done[kind] += 1
        victim = self._random.choice(list(layers.claims.facts))
        request, fact = layers.claims.requests[victim], layers.claims.facts[victim]
        folder = layers.folder(victim)
        path = folder / {"manifest": "manifest.json", "data": "data/result.json"}[kind]
        manifest = self._manifest(victim)
        rotten = [name for name in layers.claims.facts if self._shares(name, folder, path)]
        flip(path, self._random)
        if self._random.random() < 0.3:
            layers.stop(by_force=self._random.random() < 0.5)
            yield from layers.start()
        seen = self._manifest(victim)
        if seen is not None and seen != manifest:
            yield f"the manifest of {victim} was {manifest} and is answered as {seen}"
        yield from self._ask_again(request, rotten)
        yield from self._go_on(victim, fact.files["result.json"])
        for name in rotten:
            layers.delete(name)

    def _shares(self, name: str, folder: Path, path: Path) -> bool:
        """Tell whether an artifact shares this file by a hard link."""
        other = self._layers.folder(name) / path.relative_to(folder)
        return other.exists() and other.samefile(path)

    def _manifest(self, name: str) -> object:
        answer = requests.get(f"{self._layers.server.url}/artifacts/{name}/files", timeout=60)
        return answer.json() if answer.status_code == 200 else None

    def _ask_again(self, request: Request, rotten: list[str]) -> Iterator[str]:
        """Repeat the request twice: the results must be right, and must not re-use a rotten artifact."""
        layers = self._layers
        for _ in range(2):
            name = self._name()
            layers.create(name, request, reuse=True)
            layers.wait_until_final()
            status = requests.get(f"{layers.server.url}/artifacts/{name}/status", timeout=60).json()
            if status.get("reused_from") in rotten:
                yield f"{name} is re-used from {status['reused_from']}, which is rotten"
            yield from layers.check(at_all=False)

    def _go_on(self, victim: str, result: bytes) -> Iterator[str]:
        """Use the rotten artifact as input: the result is right, or the artifact fails."""
        script, name = self._script, self._name()
        answer = script.post(name, Request("x", dataset_name=victim, dataset=result), reuse=True)
        script.wait_until_final()
        if answer.status_code == 200 and script.phases()[name] == "completed":
            yield from (f"script: {wrong}" for wrong in script.claims.check(name, is_undisturbed=False))
        script.delete(name)

    def _name(self) -> str:
        self._number += 1
        return f"n{self._number}"


def flip(path: Path, random_: random.Random) -> None:
    """Change one byte of a file, but neither its size nor its mode."""
    mode = path.stat().st_mode
    path.chmod(0o644)
    with path.open("r+b") as file:
        offset = random_.randrange(path.stat().st_size)
        file.seek(offset)
        [byte] = file.read(1)
        file.seek(offset)
        file.write(bytes([byte ^ random_.randrange(1, 256)]))
    path.chmod(mode)


def test_rotten_files_are_neither_re_used_nor_served_as_right(tmp_path: Path) -> None:
    """One byte of a published file or a manifest has changed."""
    random_, began = seeded(), time.monotonic()
    with edited_tools(tmp_path) as (layers, script):
        campaign = RottenFiles(layers, script, random_)
        wrong = campaign.prepare()
        for number in range(2 * DAMAGES):
            kind = ("data", "manifest")[number % 2]
            wrong += [f"after a byte of {kind} changed: {each}" for each in campaign.spoil_one(kind)]
            if len(wrong) >= _MOST_WRONG:
                break
    print(f"{dict(campaign.done)}; {time.monotonic() - began:.0f} s")
    assert not wrong, "\n".join(wrong[:_MOST_WRONG])
