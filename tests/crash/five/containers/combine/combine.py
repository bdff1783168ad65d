"""Puts one or two texts into brackets."""

from ledger import work


def create(artifact, *, left, right, seconds):
    """Write the new text."""
    work(artifact.name, seconds)
    texts = [each.path("text").read_text() for each in (left, right) if each]
    artifact.path("text").write_text(f"({' '.join(texts)})")
