"""The parsers of files: archives, tool descriptions, rows, manifests, progress files, `.env` files, and of settings."""

from __future__ import annotations

import gzip
import json
import struct
import sys
import zlib
from dataclasses import fields
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import yaml

from bonseyes_dagster.description import load_tool
from bonseyes_dagster.errors import SettingsError, ToolError
from bonseyes_dagster.gateway.access import rules_from_settings
from bonseyes_dagster.model import FileEntry, Manifest
from bonseyes_dagster.project.environment import compose_environ
from bonseyes_dagster.settings import Settings
from bonseyes_dagster.tool.artifacts.index import ArtifactRow
from bonseyes_dagster.tool.artifacts.layout import Folder
from bonseyes_dagster.tool.artifacts.progress import read_progress
from bonseyes_dagster.tool.artifacts.publishing import DamagedError, read_manifest
from bonseyes_dagster.tool.artifacts.row_copies import RowDamagedError, _digest, encode_row_copy, read_row_copy
from tests.fuzz.cases import CASES, fuzz
from tests.fuzz.mutation import mutated_bytes, mutated_json, mutated_text

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "containers" / "import"))
from idx import IdxArchive  # noqa: E402  # a module of the import tool

_SAMPLE = (ROOT / "tests/contract/tools/sample/tool.yml").read_text()
_BENCHMARKING = (ROOT / "components/image-classification/containers/benchmarking/tool.yml").read_text()
_YAML_WORDS = (
    "&a",
    "*a",
    "!!int",
    "!!float x",
    "!!bool x",
    "!!timestamp x",
    "!!set {a}",
    "!!binary /w==",
    "2001-02-03",
    "<<: ",
)
_YAML_WORDS += (
    "- ",
    ": ",
    "{a: b}",
    "[1, 2]",
    ".nan",
    "0o17",
    "12:30:45",
    "? [a]\n: b",
    "| \n",
    "name",
    "default",
    "schema",
)


def idx(shape: tuple[int, ...], data: bytes) -> bytes:
    """Return an IDX archive of unsigned bytes."""
    return struct.pack(f">BBBB{len(shape)}I", 0, 0, 8, len(shape), *shape) + data


def gunzip(content: bytes) -> bytes:
    """Return the content of all gzip streams. Like `gunzip`, ignore other bytes after them."""
    plain = b""
    while content[:2] == b"\x1f\x8b":
        stream = zlib.decompressobj(zlib.MAX_WBITS | 16)
        plain += stream.decompress(content)
        content = stream.unused_data.lstrip(b"\0")
    return plain


def test_an_archive_is_read_as_numpy_reads_it_or_refused(tmp_path: Path) -> None:
    """The archive may be compressed, and its header may claim any size."""
    file = tmp_path / "archive"

    def make(random: Random) -> bytes:
        shape = random.choice(((5,), (2, 3, 4), (40, 2, 2)))
        size = int(np.prod(shape))
        whole = idx(shape, random.randbytes(size))
        words = (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\0\0\x08\x01", b"\0\0\x08\x03")
        if random.random() < 0.5:
            return mutated_bytes(random, whole, words)
        packed = gzip.compress(mutated_bytes(random, whole, words) if random.random() < 0.5 else whole, mtime=0)
        return mutated_bytes(random, packed, (b"\x1f\x8b\x08", b"\0" * 8, packed[:10]))

    def check(content: bytes) -> None:
        file.write_bytes(content)
        for dimensions in (1, 3):
            try:
                with IdxArchive(file, "image", dimensions) as archive:
                    samples = archive.read(7)
                    while (more := archive.read(7)).size:
                        samples = np.concatenate([samples, more])
                    archive.check_end()
            except ToolError as error:
                assert str(error)
                continue
            is_packed = content[:2] == b"\x1f\x8b"
            if is_packed and content[3] & 0xE2:
                continue  # Python's gzip accepts streams that zlib refuses: reserved flags, a wrong header checksum
            plain = gunzip(content) if is_packed else content
            begin = 4 + 4 * dimensions
            shape = tuple(np.frombuffer(plain[4:begin], ">u4"))
            assert np.array_equal(samples, np.frombuffer(plain[begin:], np.uint8).reshape(shape))

    fuzz("IDX archives", make, check)


def test_a_huge_size_in_a_header_allocates_no_memory(tmp_path: Path) -> None:
    """A header of 16 bytes must not make the tool allocate gigabytes."""
    file = tmp_path / "archive"
    file.write_bytes(idx((2**31, 8192, 8192), b"x" * 100))
    with IdxArchive(file, "image", 3) as archive, pytest.raises(ToolError, match="truncated"):
        archive.read(64)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of `re`, about patterns
def test_a_tool_description_is_valid_or_raises_settings_error(tmp_path: Path) -> None:
    """Authors write tool.yml by hand."""
    (tmp_path / "sample.py").write_text("def create(artifact): ...\n")
    documents = [yaml.safe_load(_SAMPLE), yaml.safe_load(_BENCHMARKING)]
    for document in documents:
        document.pop("code", None)

    def make(random: Random) -> bytes:
        if random.random() < 0.6:
            return mutated_text(random, _SAMPLE, _YAML_WORDS).encode(errors="surrogatepass")
        return json.dumps(mutated_json(random, random.choice(documents))).encode()

    def check(content: bytes) -> None:
        (tmp_path / "tool.yml").write_bytes(content)
        try:
            tool = load_tool(tmp_path)
        except SettingsError as error:
            assert str(error)
            return
        json.dumps(tool.description.to_json(), allow_nan=False)

    fuzz("descriptions of tools", make, check, cases=max(CASES // 3, 1))


@pytest.mark.parametrize(
    "line",
    [
        "code: [" + "a" * 300 + "]",
        "parameters: {day: {type: json, default: 2001-02-03}}",
        "parameters: {day: {type: string, default: 2001-99-99}}",
        "parameters: {day: {type: json, schema: {enum: [2001-02-03]}}}",
        "parameters: {p: {type: json, schema: &a {not: *a}}}",
        "description: !!float x",
        "description: !!bool x",
        "description: !!timestamp x",
        "description: " + "[" * 5000,
        "description: " + "9" * 5000,
    ],
)
def test_errors_of_libraries_become_settings_error(line: str, tmp_path: Path) -> None:
    """The YAML parser, the file system and the schema library raise other errors for these lines."""
    run = "" if line.startswith("command") else "entry_point: a:b\n"
    about = "" if line.startswith("description") else "description: d\n"
    (tmp_path / "tool.yml").write_text(f"name: a\noutput_type: x\n{about}{run}{line}\n")
    with pytest.raises(SettingsError):
        load_tool(tmp_path)


def test_a_word_of_a_command_may_be_longer_than_a_file_name(tmp_path: Path) -> None:
    """It looks like a path, but no file system allows such a name."""
    word = "./" + "a" * 300
    (tmp_path / "tool.yml").write_text(f"name: a\ndescription: d\noutput_type: x\ncommand: [{word}]\n")
    assert load_tool(tmp_path).command == (word,)


def make_row() -> ArtifactRow:
    """Return a valid row."""
    return ArtifactRow(
        id="0" * 32, name="a", phase="completed", created="2024-01-01T00:00:00.000Z", tool="t", version="1",
        parameters={"x": 1}, files={"f": {"name": "n"}}, inputs={"i": {"url": "u"}},
    )  # fmt: skip


def test_a_row_is_valid_or_raises_row_damaged_error(tmp_path: Path) -> None:
    """A right digest shows that the file did not change. It does not show that its content is a row."""
    folder = Folder(tmp_path / ("0" * 32))
    folder.path.mkdir()
    whole = encode_row_copy(make_row())
    columns = json.loads(whole)["row"]

    def make(random: Random) -> bytes:
        if random.random() < 0.3:
            return mutated_bytes(random, whole, (b"null", b"[" * 100_000, b"9" * 5000, b"NaN"))
        changed = mutated_json(random, columns)
        return json.dumps({"sha256": _digest(changed), "row": changed}).encode()

    def check(content: bytes) -> None:
        folder.row_copy.write_bytes(content)
        try:
            row = read_row_copy(folder)
        except RowDamagedError:
            return
        assert row is not None
        assert row.id == folder.id
        assert {f.name for f in fields(row)} == {f.name for f in fields(ArtifactRow)}
        assert encode_row_copy(row)

    fuzz("rows", make, check)


def test_a_manifest_is_valid_or_raises_damaged_error(tmp_path: Path) -> None:
    """No path in a valid manifest leads out of the artifact's folder."""
    folder = Folder(tmp_path)
    manifest = Manifest(tuple(FileEntry(path, 3, "0" * 64) for path in ("a.txt", "b/c.bin")))

    def make(random: Random) -> bytes:
        if random.random() < 0.5:
            return mutated_bytes(random, manifest.canonical, (b"..", b"/", b"\\u0000", b"null", b"[" * 100_000))
        return json.dumps(mutated_json(random, manifest.to_json())).encode()

    def check(content: bytes) -> None:
        folder.manifest.write_bytes(content)
        try:
            found = read_manifest(folder)
        except DamagedError:
            return
        for entry in found.files:
            assert (tmp_path / entry.path).resolve().is_relative_to(tmp_path)
        json.dumps(found.to_json(), allow_nan=False).encode()

    fuzz("manifests", make, check)


def test_any_progress_file_gives_valid_json(tmp_path: Path) -> None:
    """The command of a tool writes the file, so it may hold anything."""
    file = tmp_path / "progress.json"

    def make(random: Random) -> bytes:
        whole = {"done": 1, "total": 2.5, "unit": "step", "message": "half"}
        if random.random() < 0.3:
            return mutated_bytes(random, json.dumps(whole).encode(), (b"[" * 100_000, b"9" * 5000))
        return json.dumps(mutated_json(random, whole)).encode()

    def check(content: bytes) -> None:
        file.write_bytes(content)
        json.dumps(read_progress(file), allow_nan=False)

    fuzz("progress", make, check)


_ENVIRON = {f.metadata["name"]: str(f.default or "") for f in fields(Settings)}
_ENVIRON |= {
    "BONSEYES_URL": "https://example.com:8443/x",
    "BONSEYES_OUTBOUND": "example.com, 10.0.0.0/8",
    "BONSEYES_ALLOWED_HOSTS": "example.com:80 [::1]",
    "BONSEYES_TOOL": "~/tool",
    "BONSEYES_TOKEN": "secret",
}


def test_the_environment_is_valid_or_raises_settings_error() -> None:
    """A variable may hold any text."""

    def make(random: Random) -> dict[str, str]:
        environ = dict(_ENVIRON)
        for name in random.sample(sorted(environ), 3):
            environ[name] = mutated_text(random, environ[name], ("~nobody/", "http://[", "1_0", "\u0661")).replace(
                "\0", ""
            )
        return environ

    def check(environ: dict[str, str]) -> None:
        try:
            settings = Settings.from_environ(environ)
            rules_from_settings(settings, settings.host, settings.port)
        except SettingsError as error:
            assert str(error)

    fuzz("environments", make, check)


@pytest.mark.parametrize(
    ("name", "value"),
    [("BONSEYES_TOOL", "~nobody-of-this-name/x"), ("BONSEYES_URL", "http://[")],
)
def test_errors_of_path_and_url_parsers_name_the_setting(name: str, value: str) -> None:
    """Python's parsers raise other errors for these values."""
    with pytest.raises(SettingsError, match=name):
        rules_from_settings(Settings.from_environ({name: value}), "127.0.0.1", 8000)


def test_an_env_file_gives_texts_or_raises_settings_error(tmp_path: Path) -> None:
    """Invalid lines are ignored."""
    whole = b"# settings\nBONSEYES_TOKEN=secret\nexport A='b c'\nURL=\"http://x/${A}\"\n"

    def check(content: bytes) -> None:
        (tmp_path / ".env").write_bytes(content)
        try:
            found = compose_environ(tmp_path, {})
        except SettingsError:
            return
        assert all(isinstance(name, str) and isinstance(value, str) for name, value in found.items())

    fuzz(".env files", lambda random: mutated_bytes(random, whole, (b"${", b"}", b"'", b"\\", b"=", b"\xff")), check)


def test_an_evaluation_criterion_passes_only_within_its_bounds() -> None:
    """An invalid criterion fails."""
    sys.path.insert(0, str(ROOT / "components/image-classification/code"))
    from image_classification.verdicts import judge

    whole = {"name": "good", "description": "d", "metric": "accuracy", "minimum": 0.5, "maximum": 1}

    def make(random: Random) -> tuple[Any, Any]:
        value = random.choice((0.1, 0.7, 2.0, float("nan"), float("inf"), float("-inf")))
        changed = mutated_json(random, whole)
        return changed if isinstance(changed, dict) else whole, value

    def check(case: tuple[Any, float]) -> None:
        criterion, value = case
        [verdict] = judge([criterion], {"accuracy": value})
        assert verdict["reason"]
        if verdict["passed"]:
            bounds = [criterion.get(key) for key in ("minimum", "maximum")]
            assert any(bound is not None for bound in bounds)
            assert bounds[0] is None or value >= bounds[0]
            assert bounds[1] is None or value <= bounds[1]

    fuzz("evaluation criteria", make, check)
