"""Says how long a text is."""

import json

from ledger import work


def create(artifact, *, dataset, seconds):
    """Write the text and its length."""
    work(artifact.name, seconds)
    text = dataset.path("text").read_text()
    artifact.scalar("length", 0, len(text))
    artifact.path("report.json").write_text(json.dumps({"text": text, "length": len(text)}))
