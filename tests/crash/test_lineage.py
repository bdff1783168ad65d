"""The judge of re-executions judged: it knows which results are a run's own, and which are stale."""

from __future__ import annotations

from tests.crash.lineage import STEPS, Made, ModelRun

WHOLE = ModelRun("whole", "0", frozenset(STEPS), "l", "r")


def again(name: str, *steps: str, parent: ModelRun = WHOLE, left: str = "L") -> ModelRun:
    """Return a re-execution of some steps with another left text."""
    return ModelRun(name, name, frozenset(steps), left, "r", parent)


def test_a_whole_run_shows_what_it_made() -> None:
    """Each step's text follows from those before it."""
    assert WHOLE.shown("judge") == Made("whole_judge", "((l r))")


def test_a_step_before_what_was_made_anew_is_the_parents() -> None:
    """Nothing that it depends on has changed."""
    run = again("again", "refine")
    assert run.shown("combine") == Made("whole_combine", "(l r)")
    assert run.shown("refine") == Made("again_refine", "((l r))")


def test_a_step_after_what_was_made_anew_is_not_selected() -> None:
    """Its result is of another text."""
    run = again("again", "source_left")
    assert run.shown("source_left") == Made("again_source_left", "L")
    assert run.shown("source_right") == Made("whole_source_right", "r")
    assert [step for step in STEPS if run.shown(step) is None] == ["combine", "refine", "judge"]


def test_what_a_parent_does_not_show_is_not_shown_by_its_child() -> None:
    """It is stale there already, though a step that is executed would be given it."""
    parent = again("parent", "source_left")
    child = again("child", "source_right", parent=parent)
    assert child.shown("source_left") == Made("parent_source_left", "L")
    assert child.shown("judge") is None
    assert again("judged", "judge", parent=parent).shown("judge") == Made("judged_judge", "((l r))")


def test_a_run_of_some_steps_shows_no_others() -> None:
    """It has no parent to inherit from, and nothing can be made of what is missing."""
    run = ModelRun("part", "0", frozenset({"source_left"}), "l", "r")
    assert [step for step in STEPS if run.shown(step)] == ["source_left"]
    assert run.is_possible(frozenset({"source_right", "combine"}))
    assert not run.is_possible(frozenset({"combine"}))
