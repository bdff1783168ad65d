"""Rules about images: what is built is there to be built, and what is deployed is what is built."""

from __future__ import annotations

from collections.abc import Iterator

from bonseyes_dagster.docker.check.finding import Finding, line_of
from bonseyes_dagster.docker.check.subject import Subject
from bonseyes_dagster.docker.compose.files import Image
from bonseyes_dagster.errors import SettingsError

__all__ = ["RULES"]


def _at_image(subject: Subject, image: Image, problem: str, remedy: str) -> Finding:
    return Finding(
        file=subject.shown(image.file),
        line=line_of(image.file, image.name),
        problem=f"{image.name}: {problem}",
        remedy=remedy,
    )


def dockerfile_there(subject: Subject) -> Iterator[Finding]:
    """Each entry of a build file leads to a Dockerfile that can be read, with the stage that it names."""
    for image in subject.images.values():
        if not image.dockerfile.exists():
            yield _at_image(subject, image, f"there is no {subject.shown(image.dockerfile)}.", "Write it.")
            continue
        try:
            image.bases()
        except SettingsError as error:
            problem = error.message.replace(f"{subject.folder}/", "")
            yield _at_image(subject, image, problem, "Correct it, or the entry's `target`.")


def base_is_built(subject: Subject) -> Iterator[Finding]:
    """An image of ours that another is made from is built by an entry, too."""
    built = {image.repository for image in subject.images.values()}
    for image in subject.images.values():
        try:
            bases = image.bases()
        except SettingsError:
            continue  # told by `dockerfile_there`
        for base in sorted(bases - built):
            if subject.is_ours(base):
                yield _at_image(
                    subject,
                    image,
                    f"it is made from {base}, which no build file makes.",
                    f"There are: {', '.join(sorted(built))}.",
                )


def image_has_tool(subject: Subject) -> Iterator[Finding]:
    """An image that runs a tool has a tool to run."""
    inner = {tool.inner: tool.name for tool in subject.tools}
    deployed = {service.repository for service in subject.services.values()}
    for image in subject.images.values():
        path = subject.tool_of(image)
        # What is deployed is told of at its service.
        if path and path not in inner and image.repository not in deployed:
            yield _at_image(
                subject,
                image,
                f"its BONSEYES_TOOL is {path!r}.",
                "There is no such folder in containers/ or components/: remove the entry, or add the tool.",
            )


def service_image(subject: Subject) -> Iterator[Finding]:
    """A service runs an image that is built under that very name, and a tool its own."""
    by_repository = {image.repository: image for image in subject.images.values()}
    for service in subject.services.values():
        tool = subject.tool_services.get(service.name)
        wanted = subject.images.get(tool.name) if tool else None
        built = by_repository.get(service.repository)
        if wanted and service.image != wanted.reference:
            yield subject.at_service(
                service.name,
                f"its image is {service.image!r}.",
                f"{subject.shown(wanted.file)} builds {wanted.reference!r} for it.",
            )
        elif not wanted and built and service.image != built.reference:
            yield subject.at_service(
                service.name,
                f"its image is {service.image!r}.",
                f"{subject.shown(built.file)} builds {built.reference!r}.",
            )
        elif not wanted and not built and (not service.image or subject.is_ours(service.repository)):
            yield subject.at_service(
                service.name,
                f"its image is {service.image!r}, which no build file makes.",
                "Add it to one, or name one that is built.",
            )


RULES = (dockerfile_there, base_is_built, image_has_tool, service_image)
