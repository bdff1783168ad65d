"""The tools use bounded memory: the archives are several times larger than the memory that a tool may use."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SAMPLES, SIDE, VIEW = 480, 512, 256
ALLOWED_MIB = 40

# Run in a separate process: the peak of a process never falls.
SCRIPT = """
import json, resource, sys
from pathlib import Path
from bonseyes_dagster.tool.testing import make_artifact

root, out, view = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
component = root / "components/image-classification/containers"

def run(name, archives, size):
    peaks = {}
    def step(tool, folder, **parameters):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        made = make_artifact(folder, out / name / tool, **parameters)
        peaks[tool] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        return made
    imported = step("import", root / "containers/import", images=archives / "images", labels=archives / "labels")
    processed = step("processing", component / "processing", dataset=imported, size=size)
    tensors = step("export", component / "export", dataset=processed)
    step("training-set", component / "training-set", tensors=tensors)
    return peaks

run("small", out / "few", 32)  # loads the libraries and allocates the buffers of a batch
print(json.dumps(run("large", out / "many", view)), file=sys.stderr)
"""


def write_archives(folder: Path, count: int, side: int) -> None:
    """Write archives of striped images, one image at a time."""
    folder.mkdir()
    header = bytes([0, 0, 8, 3]) + b"".join(number.to_bytes(4, "big") for number in (count, side, side))
    with (folder / "images").open("wb") as file:
        file.write(header)
        for number in range(count):
            stripes = bytes((number + column) % 256 for column in range(side))
            file.write(stripes * side)
    labels = bytes([0, 0, 8, 1]) + count.to_bytes(4, "big") + bytes(number % 4 for number in range(count))
    (folder / "labels").write_bytes(labels)


@pytest.mark.slow
def test_no_tool_holds_its_data_in_memory(tmp_path: Path) -> None:
    """Each tool processes 120 MiB of images or tensors. Its memory grows by less than 40 MiB."""
    write_archives(tmp_path / "few", 20, 64)
    write_archives(tmp_path / "many", SAMPLES, SIDE)
    assert (tmp_path / "many/images").stat().st_size > 3 * ALLOWED_MIB * 2**20 - 2**20
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(ROOT), str(tmp_path), str(VIEW)],
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr
    peaks = json.loads(done.stderr)
    assert set(peaks) == {"import", "processing", "export", "training-set"}
    assert max(peaks.values()) < ALLOWED_MIB, peaks
    tensors = tmp_path / "large/export/data/inputs.npy"
    assert tensors.stat().st_size > 3 * ALLOWED_MIB * 2**20 - 2**20
