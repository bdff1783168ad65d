"""Tests of `lineage.py`: it knows which results belong to a run, and which are stale."""

from __future__ import annotations

from tests.crash.lineage import STEPS, Made, ModelRun

WHOLE = ModelRun("whole", "0", frozenset(STEPS), "l", "r")


def again(name: str, *steps: str, parent: ModelRun = WHOLE, left: str = "L") -> ModelRun:
    """Return a re-execution of some steps with another left text."""
    return ModelRun(name, name, frozenset(steps), left, "r", parent)


def test_whole_run_shows_its_own_results() -> None:
    """The text of each step follows from the steps before it."""
    assert WHOLE.shown("judge") == Made("whole_judge", "((l r))")


def test_step_before_a_new_one_shows_the_parents_result() -> None:
    """No step that it depends on has changed."""
    run = again("again", "refine")
    assert run.shown("combine") == Made("whole_combine", "(l r)")
    assert run.shown("refine") == Made("again_refine", "((l r))")


def test_step_after_a_new_one_is_not_selected() -> None:
    """Its old result comes from another text."""
    run = again("again", "source_left")
    assert run.shown("source_left") == Made("again_source_left", "L")
    assert run.shown("source_right") == Made("whole_source_right", "r")
    assert [step for step in STEPS if run.shown(step) is None] == ["combine", "refine", "judge"]


def test_child_does_not_show_a_result_that_its_parent_does_not_show() -> None:
    """The result is stale there already, though a step that runs now would use it as input."""
    parent = again("parent", "source_left")
    child = again("child", "source_right", parent=parent)
    assert child.shown("source_left") == Made("parent_source_left", "L")
    assert child.shown("judge") is None
    assert again("judged", "judge", parent=parent).shown("judge") == Made("judged_judge", "((l r))")


def test_run_of_some_steps_shows_no_others() -> None:
    """It has no parent, and no step can run without its inputs."""
    run = ModelRun("part", "0", frozenset({"source_left"}), "l", "r")
    assert [step for step in STEPS if run.shown(step)] == ["source_left"]
    assert run.is_possible(frozenset({"source_right", "combine"}))
    assert not run.is_possible(frozenset({"combine"}))
