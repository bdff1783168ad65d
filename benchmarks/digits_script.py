"""The rival of the digits pipelines: a plain script that does the same work without containers, HTTP or Dagster.

    python benchmarks/digits_script.py OUT [--model cnn] [--archives FOLDER]

The script calls the functions of the six tools one after another, with the pipelines' defaults, on folders under OUT.
It prints the time of each step and the metrics of the benchmark as JSON. The difference to a pipeline's run is the cost
of the orchestration. The time includes the imports, because each run of a script needs them.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
COMPONENT = ROOT / "components/image-classification"
TOOLS = ("processing", "export", "training-set", "training", "benchmarking")


@dataclass
class Script:
    """Runs each step in its own folder and records its duration."""

    out: Path
    durations_s: dict[str, float] = field(default_factory=dict)

    def step(self, name: str, create: Callable[..., None], **parameters: Any) -> Any:
        """Run the function of one tool. Return its output folder, which the next step reads."""
        started = time.perf_counter()
        work = _work(self.out / name)
        with (self.out / f"{name}.log").open("w") as log, redirect_stdout(log):
            create(work, **parameters)
        self.durations_s[name] = time.perf_counter() - started
        return work


def _work(folder: Path) -> Any:
    """Return a folder with the methods of an artifact. It writes a line for each value of a metric immediately."""
    from image_classification.artifacts import Folder

    class Work(Folder):
        def scalar(self, name: str, step: int, value: float) -> None:
            with (self.folder / f"{name}.scalar").open("a") as file:
                file.write(f"{time.time():.3f} {step} {value:.9g}\n")

        def set_progress(self, done: float, total: float | None = None, unit: str = "", message: str = "") -> None:
            pass

    folder.mkdir(parents=True)
    return Work(folder)


def run(out: Path, archives: dict[str, Path], model: str, image_size: int, seed: int) -> dict[str, Any]:
    """Do the work of a digits pipeline. Return durations and metrics."""
    started = time.perf_counter()
    for folder in (
        COMPONENT / "code",
        ROOT / "containers/import",
        *(COMPONENT / "containers" / tool for tool in TOOLS),
    ):
        sys.path.insert(0, str(folder))
    import benchmarking
    import export
    import idx_import
    import processing
    import training
    import training_set

    script = Script(out, {"imports": time.perf_counter() - started})
    tensors = {}
    for part in ("train", "test"):
        images, labels = archives[f"{part}-images"], archives[f"{part}-labels"]
        dataset = script.step(f"import_{part}", idx_import.create, images=images, labels=labels)
        view = script.step(f"process_{part}", processing.create, dataset=dataset, size=image_size)
        tensors[part] = script.step(f"export_{part}", export.create, dataset=view)
    split = script.step("split", training_set.create, tensors=tensors["train"], seed=seed)
    trained = script.step("train", training.create, training_set=split, model=model, seed=seed)
    result = script.step("benchmark", benchmarking.create, model=trained, tensors=tensors["test"])
    return {
        "model": model,
        "seconds": time.perf_counter() - started,
        "steps": script.durations_s,
        "metrics": result.json("report.json")["metrics"],
    }


def main() -> int:
    """Run once and print the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path, help="folder for the output; it must not exist yet")
    parser.add_argument("--archives", type=Path, help="folder with the four archives (default: write them to OUT)")
    parser.add_argument("--model", choices=("cnn", "mlp"), default="cnn")
    parser.add_argument("--image-size", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True)
    sys.path.insert(0, str(ROOT / "demo"))
    import digits

    if arguments.archives:
        archives = {parameter: arguments.archives / name for parameter, name in digits.NAMES.items()}
    else:
        archives = digits.write_archives(arguments.out / "archives", digits.digits())
    print(json.dumps(run(arguments.out, archives, arguments.model, arguments.image_size, arguments.seed), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
