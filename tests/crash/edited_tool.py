"""One tool of the campaign of random edits: its container, its code on the disk, and its claims."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import requests

from tests.contract.tools.server import ToolServer
from tests.crash.claims import Claims, Request
from tests.crash.code_files import CodeFiles
from tests.crash.index_files import IndexFiles
from tests.crash.model import FINAL
from tests.waiting import until

__all__ = ["EditedTool", "edited_tools"]

VERSIONED = Path(__file__).parent / "versioned"
_REQUEST_S = 60
_FINAL_WITHIN_S = 300


class EditedTool:
    """A container whose code is edited, and that is restarted and gets requests."""

    def __init__(self, server: ToolServer, code: CodeFiles, ledger: Path) -> None:
        self.server = server
        self.code = code
        self.claims = Claims(server.url, code)
        self.index = IndexFiles(server.volume)
        self._ledger = ledger
        self.is_undisturbed = False
        """Whether the code has not changed since the start of the container began."""
        self.is_interrupted = False
        """Whether artifacts may have been interrupted since the last check."""
        self.new: list[str] = []
        """Artifacts that were not checked yet."""
        self.deleted: set[str] = set()

    @property
    def name(self) -> str:
        """Return the tool's name."""
        return self.server.tool.name

    @property
    def volume(self) -> Path:
        """Return the volume of the container."""
        return self.server.volume

    def folder(self, name: str) -> Path:
        """Return the folder of an artifact on the volume."""
        info = requests.get(f"{self.server.url}/artifacts/{name}", timeout=_REQUEST_S).json()
        return self.volume / "artifacts" / str(info["id"])

    # Starting

    def start(self) -> Iterator[str]:
        """Start without concurrent edits, and check the version: it must be that of the code on the disk."""
        try:
            self.server.start()
        except AssertionError as error:
            raise AssertionError(f"does not start: {str(error).strip().splitlines()[-1][-300:]}") from None
        self.is_undisturbed = True
        yield from self.claims.add_version(self.version(), self.code.content(), f"{self.name} as it starts")

    def start_while(self, edit: threading.Thread) -> None:
        """Start during an edit."""
        self.is_undisturbed = False
        self.server.spawn()
        edit.start()
        edit.join()
        until(self.server.container.is_healthy)

    def stop(self, *, by_force: bool) -> None:
        """End the container."""
        self.is_interrupted = True
        if by_force:
            self.server.kill()
        else:
            self.server.stop()

    def version(self) -> str:
        """Return the version that the container claims."""
        return str(requests.get(self.server.url, timeout=_REQUEST_S).json()["version"])

    def says_code_changed(self) -> bool:
        """Tell whether the container says that its code has changed."""
        return bool(requests.get(self.server.url, timeout=_REQUEST_S).json().get("code_changed"))

    # Creating

    def create(self, name: str, request: Request, *, reuse: bool) -> None:
        """Create an artifact; the answer must be a 200."""
        answer = self.post(name, request, reuse=reuse)
        assert answer.status_code == 200, f"{name}: {answer.status_code} {answer.text}"
        self.new.append(name)

    def post(self, name: str, request: Request, *, reuse: bool) -> requests.Response:
        """Send the creation of an artifact, and return the answer."""
        self.claims.requests[name] = request
        self.deleted.discard(name)
        parts = {"name": (None, name), "data": (None, json.dumps(request.parameters))}
        if request.upload is not None:
            parts["upload"] = ("upload.txt", request.upload)
        query = {"reuse": "true"} if reuse else {}
        return requests.post(f"{self.server.url}/artifacts", files=parts, params=query, timeout=_REQUEST_S)

    def create_at_once(self, wanted: Sequence[tuple[str, Request]]) -> None:
        """Create all these artifacts at the same moment, with re-use."""
        with ThreadPoolExecutor(len(wanted)) as pool:
            list(pool.map(lambda pair: self.create(*pair, reuse=True), wanted))

    def delete(self, name: str) -> None:
        """Delete an artifact, which may be deleted already."""
        answer = requests.delete(f"{self.server.url}/artifacts/{name}", timeout=_REQUEST_S)
        assert answer.status_code in (200, 404), answer.text
        self.claims.forget(name)
        self.deleted.add(name)

    def wait_until_working(self, name: str) -> None:
        """Wait until the tool's code has begun to make an artifact, or has made it."""
        until(lambda: name in self.computations() or self.phases().get(name) in FINAL)

    def computations(self) -> Counter[str]:
        """Return how often each artifact was computed."""
        return Counter(self._ledger.read_text().split() if self._ledger.exists() else [])

    # Looking

    def phases(self) -> dict[str, str]:
        """Return the phase of each artifact."""
        answer = requests.get(f"{self.server.url}/artifacts?detail=1", timeout=_REQUEST_S)
        answer.raise_for_status()
        return {status["name"]: status["phase"] for status in answer.json()}

    def wait_until_final(self) -> None:
        """Wait until every artifact is final."""
        began = time.monotonic()
        while not FINAL.issuperset(self.phases().values()):
            assert time.monotonic() - began < _FINAL_WITHIN_S, f"{self.name} is stuck with {self.phases()}"
            time.sleep(0.02)

    def check(self, *, at_all: bool) -> Iterator[str]:
        """Yield the faults of the new artifacts, or of all artifacts."""
        self.wait_until_final()
        names = list(dict.fromkeys([*(self.claims.facts if at_all else ()), *self.new]))
        is_undisturbed = self.is_undisturbed and not self.is_interrupted
        for name in names:
            for wrong in self.claims.check(name, is_undisturbed=is_undisturbed and name in self.new):
                yield f"{self.name}: {wrong}"
        self.new.clear()
        self.is_interrupted = False

    def check_unexpected(self) -> Iterator[str]:
        """Delete unexpected artifacts, which an old index may bring back; yield the completed ones as faults."""
        for name, phase in self.phases().items():
            if name in self.claims.facts:
                continue
            if phase == "completed":
                yield f"{self.name}: {name} is completed, and {'was deleted' if name in self.deleted else 'new'}"
            requests.delete(f"{self.server.url}/artifacts/{name}", timeout=_REQUEST_S)


@contextmanager
def edited_tools(folder: Path) -> Iterator[list[EditedTool]]:
    """Yield copies of the two tools of `versioned`, not started yet; end their containers afterwards."""
    shutil.copytree(VERSIONED, folder / "tools", ignore=shutil.ignore_patterns("__pycache__"))
    addresses, ledger = folder / "addresses.json", folder / "ledger"
    tools = []
    for name, others in (("layers", ["code"]), ("script", [])):
        path, volume = folder / "tools" / name, folder / "volumes" / name
        settings = {"BONSEYES_ADDRESSES": str(addresses), "CAMPAIGN_LEDGER": str(ledger)}
        # Let Python write bytecode, as it does by default. It compares only size and whole seconds of the source.
        settings["PYTHONDONTWRITEBYTECODE"] = ""
        server = ToolServer(path, volume, **settings)
        tools.append(EditedTool(server, CodeFiles(path, *(path.with_name(other) for other in others)), ledger))
    (folder / "volumes").mkdir()
    addresses.write_text(json.dumps({tool.name: tool.server.url for tool in tools}))
    with ExitStack() as stack:
        for tool in tools:
            stack.callback(tool.server.end)
        yield tools
