"""Makes a text."""

from ledger import work


def create(artifact, *, text, seconds):
    """Write the text."""
    work(artifact.name, seconds)
    artifact.path("text").write_text(text)
