"""The expected results of runs of five steps and their re-executions: a result per step, or that it is not selected."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["INPUTS", "STEPS", "Made", "ModelRun", "upstream"]

INPUTS: dict[str, tuple[str, ...]] = {
    "source_left": (),
    "source_right": (),
    "combine": ("source_left", "source_right"),
    "refine": ("combine",),
    "judge": ("refine",),
}
STEPS = tuple(INPUTS)


def upstream(step: str) -> Iterator[str]:
    """Yield all steps that a step depends on."""
    for each in INPUTS[step]:
        yield each
        yield from upstream(each)


@dataclass(frozen=True, slots=True)
class Made:
    """The artifact of a step, and its text."""

    artifact: str
    text: str


@dataclass(frozen=True, slots=True)
class ModelRun:
    """A run that executes some steps. A re-execution has a parent."""

    name: str
    run_id: str
    executed: frozenset[str]
    left: str
    right: str
    parent: ModelRun | None = None

    @property
    def root(self) -> ModelRun:
        """Return the first ancestor of the run."""
        return self.parent.root if self.parent else self

    def used(self, step: str) -> Made | None:
        """Return the result of `step` that a later step would use: the latest one of the run and its ancestors."""
        if step in self.executed:
            return Made(f"{self.name}_{step}", self._text(step))
        return self.parent.used(step) if self.parent else None

    def _text(self, step: str) -> str:
        if not INPUTS[step]:
            return {"source_left": self.left, "source_right": self.right}[step]
        inputs = [made.text for made in map(self.used, INPUTS[step]) if made]
        return inputs[0] if step == "judge" else f"({' '.join(inputs)})"

    def shown(self, step: str) -> Made | None:
        """Return the result that this run shows: its own, or its parent's if no step before it was made anew."""
        if step in self.executed:
            return self.used(step)
        is_stale = self.parent is None or not self.executed.isdisjoint(upstream(step))
        return None if is_stale or self.parent is None else self.parent.shown(step)

    def is_possible(self, steps: frozenset[str]) -> bool:
        """Tell whether a re-execution of `steps` would find all its inputs."""
        return all(each in steps or self.used(each) for step in steps for each in INPUTS[step])
