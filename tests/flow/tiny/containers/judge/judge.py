"""Judges a model by the length of another dataset."""

import json


def create(artifact, *, model, dataset, criteria):
    """Write a report."""
    learnt = int(model.path("model.txt").read_text().split()[1])
    there = dataset.path("archive.bin").stat().st_size if dataset else learnt
    accuracy = 1.0 if learnt == there else 0.5
    artifact.scalar("accuracy", 0, accuracy)
    artifact.path("report.json").write_text(json.dumps({"accuracy": accuracy, "criteria": criteria}))
    artifact.path("pictures/bar.txt").write_text("#" * learnt)
