"""A tool's files edited, restored and replaced at random, between restarts and while it works: no result lies.

A model knows what each version's result is, and of each artifact whether its code was that version throughout.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from bonseyes_dagster.client import Artifact
from tests.contract.tools.server import ToolServer
from tests.crash.scale import CODE_STEPS, seeded
from tests.waiting import until

pytestmark = pytest.mark.timeout(0)
DESCRIPTION = """
name: {name}
description: Writes what its files hold.
{runs}
output_type: com.bonseyes.text
code: [../shared]
parameters:
  text: {{type: string, default: "", description: Tells one request from another.}}
  gate: {{type: string, default: "", description: A file to make and wait for until it is gone.}}
"""
FUNCTION = """
import time
from pathlib import Path

EARLY = 0


def create(artifact, *, text, gate):
    if gate:
        Path(gate).touch()
        while Path(gate).exists():
            time.sleep(0.002)
    import late
    import shared

    extra = (Path(__file__).parent / "extra.py").exists()
    artifact.path("made").write_text(f"{EARLY} {late.LATE} {shared.SHARED} {int(extra)}")
"""
PROGRAM = """
gate="$2"
if [ -n "$gate" ]; then
    touch "$gate"
    while [ -e "$gate" ]; do sleep 0.002; done
fi
extra=0
if [ -e extra.py ]; then extra=1; fi
early=$(sed -n 's/^EARLY = //p' tool.py)
late=$(sed -n 's/^LATE = //p' late.py)
shared=$(sed -n 's/^SHARED = //p' ../shared/shared.py)
printf '%s %s %s %s' "$early" "$late" "$shared" "$extra" > "$1/made"
"""
State = tuple[int, int, int, int]


class Code:
    """The tool's files. Every state has the same sizes, so that only content and times tell them apart."""

    def __init__(self, folder: Path, random_: random.Random, *, is_program: bool) -> None:
        self.tool = folder / "tool"
        self.tool.mkdir()
        (folder / "shared").mkdir()
        runs = 'command: [sh, program.sh, "{output}", "{gate}"]' if is_program else "entry_point: tool:create"
        (self.tool / "tool.yml").write_text(DESCRIPTION.format(name="tool", runs=runs))
        (self.tool / "program.sh").write_text(PROGRAM)
        self._files = {
            0: (self.tool / "tool.py", FUNCTION, "EARLY"),
            1: (self.tool / "late.py", "LATE = 0\n", "LATE"),
            2: (folder / "shared" / "shared.py", "SHARED = 0\n", "SHARED"),
        }
        self._random = random_
        self.state: State = (0, 0, 0, 0)
        for place in self._files:
            self._write(place, 0)

    def _write(self, place: int, value: int) -> None:
        """Write one file in one of the ways of editors and tools; its time may be that of another content."""
        path, text, name = self._files[place]
        text = text.replace(f"{name} = 0", f"{name} = {value}")
        before_ns = path.stat().st_mtime_ns if path.exists() else None
        if self._random.random() < 0.5:
            path.write_text(text)
        else:
            temporary = path.with_name("new")
            temporary.write_text(text)
            temporary.replace(path)
        if before_ns is not None and self._random.random() < 0.5:
            os.utime(path, ns=(before_ns, before_ns))

    def set(self, state: State) -> None:
        """Bring the files to a state."""
        for place in self._files:
            if state[place] != self.state[place]:
                self._write(place, state[place])
        if state[3] != self.state[3]:
            extra = self.tool / "extra.py"
            extra.touch() if state[3] else extra.unlink()
        self.state = state

    def another(self) -> State:
        """Return a state that differs in one place from that of now."""
        place = self._random.randrange(4)
        changed = list(self.state)
        changed[place] = 1 - changed[place] if place == 3 else (changed[place] + self._random.choice([1, 2])) % 3
        return changed[0], changed[1], changed[2], changed[3]

    def touch(self) -> None:
        """Change a file's times alone."""
        self._files[self._random.randrange(3)][0].touch()


@dataclass
class Model:
    """What must be so: the state of each version, what the worker has loaded, and the artifacts that are true."""

    states: dict[str, State] = field(default_factory=dict)
    version: str = ""
    loaded: State = (0, 0, 0, 0)
    true: dict[str, list[str]] = field(default_factory=dict)
    """Names of completed, unmarked artifacts by version and text."""


class Campaign:
    """One container whose code changes; every step checks what it made."""

    def __init__(self, folder: Path, random_: random.Random, *, is_program: bool) -> None:
        self.random = random_
        self.is_program = is_program
        self.code = Code(folder, random_, is_program=is_program)
        self.gate = folder / "gate"
        self.server = ToolServer(self.code.tool, folder / "volume", PYTHONDONTWRITEBYTECODE="")
        self.model = Model()
        self.done: Counter[str] = Counter()
        self._names = (f"a{number}" for number in itertools.count())

    def start(self) -> None:
        """Start the container: what lies on disk now is its version."""
        self.server.start()
        self.model.version = self.server.container.describe().version
        assert self.model.states.setdefault(self.model.version, self.code.state) == self.code.state
        self.model.loaded = self.code.state

    def create(self, text: str, gate: str = "") -> Artifact:
        """Ask for an artifact, which may be made from an equal one."""
        return self.server.container.create(next(self._names), {"text": text, "gate": gate}, reuse=True)

    def text(self) -> str:
        """Return one of a few texts, so that many requests are equal."""
        return f"t{self.random.randrange(3)}"

    @property
    def is_true(self) -> bool:
        """Tell whether the code on disk, and that in the worker's memory, are those of the version."""
        state = self.model.states[self.model.version]
        return self.code.state == state and (self.is_program or self.model.loaded == state)

    def check(self, artifact: Artifact, text: str, *, is_true: bool, version: str | None = None) -> None:
        """Compare an artifact with the model; its version is that of now, or another that took it over at once."""
        version = version or self.model.version
        status = artifact.wait(timeout_s=120)
        assert status.phase == "completed", (status, b"".join(artifact.iter_log()))
        provenance = artifact.info()["provenance"]
        assert provenance["version"] == version
        content = tuple(map(int, artifact.read("made").split()))
        equal = self.model.true.setdefault(f"{version} {text}", [])
        note = (self.done, status, content, self.model, self.code.state)
        if status.reused_from is not None:
            assert status.reused_from in equal, note
        else:
            assert not equal, note
            assert status.code_changed is not is_true, note
        if not status.code_changed:
            assert content == self.model.states[version], note
            equal.append(artifact.name)
        self.done["marked" if status.code_changed else "re-used" if status.reused_from else "true"] += 1

    # Steps

    def edit(self) -> None:
        """Bring one file to another state."""
        self.code.set(self.code.another())

    def restore(self) -> None:
        """Bring all files back to those of the version."""
        self.code.set(self.model.states[self.model.version])

    def touch(self) -> None:
        """Change times alone, which changes no version."""
        self.code.touch()

    def make(self) -> None:
        """Make or take over one artifact."""
        text = self.text()
        self.check(self.create(text), text, is_true=self.is_true)

    @contextmanager
    def running(self) -> Iterator[tuple[Artifact, str]]:
        """Have an artifact that nobody re-uses in the middle of its work, until the block ends."""
        text = f"own {next(self._names)}"
        artifact = self.create(text, str(self.gate))
        until(self.gate.exists)
        yield artifact, text
        self.gate.unlink(missing_ok=True)

    def change_meanwhile(self) -> None:
        """Edit while an artifact is made; restored or not, it is marked."""
        before = self.code.state
        with self.running() as (artifact, text):
            self.edit()
            if self.random.random() < 0.5:
                self.code.set(before)
        self.check(artifact, text, is_true=False)

    def queue_equal_ones(self) -> None:
        """Let equal requests wait together: the first true one is taken over by all others."""
        text = self.text()
        is_true = self.is_true
        with self.running() as (artifact, own_text):
            waiting = [self.create(text) for _ in range(4)]
        self.check(artifact, own_text, is_true=is_true)
        for equal in waiting:
            self.check(equal, text, is_true=is_true)

    def restart(self) -> None:
        """Stop, or kill, and start; what waits meanwhile is made by the version of after."""
        if self.random.random() < 0.5:
            self.server.stop()
            self.start()
            return
        text = self.text()
        with self.running():
            waiting = [self.create(text) for _ in range(2)]
            at_once = {artifact.name for artifact in waiting if artifact.status().phase == "completed"}
            before = self.model.version
            self.server.kill()
            if self.random.random() < 0.5:
                self.edit()
        self.start()
        for artifact in waiting:
            version = before if artifact.name in at_once else self.model.version
            self.check(artifact, text, is_true=self.is_true, version=version)

    def kill_the_worker(self) -> None:
        """Let a worker load what lies on disk now, under the version of the servers."""
        os.kill(self.server.mule, signal.SIGKILL)
        self.model.loaded = self.code.state
        text = f"own {next(self._names)}"
        self.check(self.create(text), text, is_true=self.is_true)

    def delete_some(self) -> None:
        """Delete an artifact that could be re-used."""
        key = self.random.choice([*self.model.true])
        if self.model.true[key]:
            name = self.model.true[key].pop(self.random.randrange(len(self.model.true[key])))
            self.server.container.artifact(name).delete()

    def run(self, steps: int) -> None:
        """Do so many random steps."""
        weights = {
            self.edit: 6,
            self.restore: 4,
            self.touch: 2,
            self.make: 12,
            self.change_meanwhile: 3,
            self.queue_equal_ones: 2,
            self.restart: 2,
            self.kill_the_worker: 1,
            self.delete_some: 1,
        }
        self.start()
        self.make()
        for step in self.random.choices([*weights], [*weights.values()], k=steps):
            step()
            self.done[step.__name__] += 1


@pytest.mark.parametrize("is_program", [False, True], ids=["function", "program"])
def test_no_result_lies_however_the_code_changes(tmp_path: Path, *, is_program: bool) -> None:
    """An unmarked result is that of its version, a marked one has a reason, and only true ones are re-used."""
    campaign = Campaign(tmp_path, seeded(), is_program=is_program)
    try:
        campaign.run(CODE_STEPS)
    finally:
        print(dict(campaign.done))
        campaign.server.end()
