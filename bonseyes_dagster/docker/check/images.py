"""Rules about images: each image can be built, and each service uses an image that is built."""

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
    """Each entry of a build file names a readable Dockerfile that has the entry's `target`."""
    for image in subject.images.values():
        if not image.dockerfile.exists():
            yield _at_image(subject, image, f"there is no {subject.shown(image.dockerfile)}.", "Add this file.")
            continue
        try:
            image.bases()
        except SettingsError as error:
            problem = error.message.replace(f"{subject.folder}/", "")
            yield _at_image(subject, image, problem, "Correct it, or the entry's `target`.")


def base_is_built(subject: Subject) -> Iterator[Finding]:
    """If an image is based on another image of the project, a build file makes that one, too."""
    built = {image.repository for image in subject.images.values()}
    for image in subject.images.values():
        try:
            bases = image.bases()
        except SettingsError:
            continue  # `dockerfile_there` reports it
        for base in sorted(bases - built):
            if subject.is_ours(base):
                yield _at_image(
                    subject,
                    image,
                    f"it is made from {base}, which no build file makes.",
                    f"The images are: {', '.join(sorted(built))}.",
                )


def image_has_tool(subject: Subject) -> Iterator[Finding]:
    """The tool that an image runs exists."""
    inner = {tool.inner: tool.name for tool in subject.tools}
    used = {service.repository for service in subject.services.values()}
    for image in subject.images.values():
        path = subject.tool_of(image)
        # The rule `service_runs_its_tool` reports an image that a service uses.
        if path and path not in inner and image.repository not in used:
            yield _at_image(
                subject,
                image,
                f"its BONSEYES_TOOL is {path!r}.",
                "There is no such folder in containers/ or components/: remove the entry, or add the tool.",
            )


def service_image(subject: Subject) -> Iterator[Finding]:
    """A service uses an image by its exact name in the build file, and a tool's service uses the tool's image."""
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
                "Add it to a build file, or use an image that is built.",
            )


RULES = (dockerfile_there, base_is_built, image_has_tool, service_image)
