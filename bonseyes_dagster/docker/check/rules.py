"""All rules, in the order of the report, and the check itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from bonseyes_dagster.docker.check import hardening, images, isolation, services, tools
from bonseyes_dagster.docker.check.dagster_settings import check_settings
from bonseyes_dagster.docker.check.finding import Finding
from bonseyes_dagster.docker.check.imports import check_imports
from bonseyes_dagster.docker.check.pipelines import ask_pipelines
from bonseyes_dagster.docker.check.subject import Subject, read_subject

__all__ = ["RULES", "Report", "check_project", "find"]

RULES: tuple[Callable[[Subject], Iterator[Finding]], ...] = (
    *tools.RULES,
    *images.RULES,
    *services.RULES,
    *isolation.RULES,
    *hardening.RULES,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The result of a check; `skipped` has a text for each part that could not be checked, with the reason."""

    subject: Subject
    findings: tuple[Finding, ...]
    skipped: tuple[str, ...]


def check_project(folder: Path) -> Report:
    """Check the project in `folder` by every rule."""
    pipelines, reason, findings = ask_pipelines(folder)
    subject, wrong = read_subject(folder, pipelines)
    unloadable, unchecked = check_imports(subject)
    findings = [*findings, *check_settings(folder), *wrong, *find(subject), *unloadable]
    skipped = [*([f"the pipelines: {reason}"] if reason else []), *unchecked]
    return Report(subject=subject, findings=tuple(findings), skipped=tuple(skipped))


def find(subject: Subject) -> Iterator[Finding]:
    """Yield the findings of all rules, without and with each override file; each finding only once."""
    seen = set()
    for each in subject.variants():
        for rule in RULES:
            for finding in rule(each):
                if (key := (rule, finding.problem)) not in seen:
                    seen.add(key)
                    yield replace(finding, rule=rule.__name__)
