"""All rules, in the order in which they are told, and the check itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from bonseyes_dagster.deployment.check import images, isolation, services, tools
from bonseyes_dagster.deployment.check.finding import Finding
from bonseyes_dagster.deployment.check.pipelines import ask_pipelines
from bonseyes_dagster.deployment.check.subject import Subject, read_subject

__all__ = ["RULES", "Report", "check_project"]

RULES: tuple[Callable[[Subject], Iterator[Finding]], ...] = (
    *tools.RULES,
    *images.RULES,
    *services.RULES,
    *isolation.RULES,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a check found; `skipped` says what could not be looked at, and why."""

    subject: Subject
    findings: tuple[Finding, ...]
    skipped: tuple[str, ...]


def check_project(folder: Path) -> Report:
    """Check the project in `folder` by every rule."""
    pipelines, why, findings = ask_pipelines(folder)
    subject, wrong = read_subject(folder, pipelines)
    findings = [*findings, *wrong, *_by_rules(subject)]
    skipped = [f"the pipelines: {why}"] if why else []
    return Report(subject=subject, findings=tuple(findings), skipped=tuple(skipped))


def _by_rules(subject: Subject) -> Iterator[Finding]:
    for rule in RULES:
        for finding in rule(subject):
            yield replace(finding, rule=rule.__name__)
