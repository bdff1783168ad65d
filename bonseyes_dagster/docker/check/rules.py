"""All rules, in the order in which they are told, and the check itself."""

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
    """What a check found; `skipped` says what could not be looked at, and why."""

    subject: Subject
    findings: tuple[Finding, ...]
    skipped: tuple[str, ...]


def check_project(folder: Path) -> Report:
    """Check the project in `folder` by every rule."""
    pipelines, why, findings = ask_pipelines(folder)
    subject, wrong = read_subject(folder, pipelines)
    unloadable, unseen = check_imports(subject)
    findings = [*findings, *check_settings(folder), *wrong, *find(subject), *unloadable]
    skipped = [*([f"the pipelines: {why}"] if why else []), *unseen]
    return Report(subject=subject, findings=tuple(findings), skipped=tuple(skipped))


def find(subject: Subject) -> Iterator[Finding]:
    """Yield what the rules find, in the deployment as it is and as each override makes it; each but once."""
    told = set()
    for each in subject.variants():
        for rule in RULES:
            for finding in rule(each):
                if (said := (rule, finding.problem)) not in told:
                    told.add(said)
                    yield replace(finding, rule=rule.__name__)
