"""The former place of `ArtifactRef`, by which stored values of runs name it; new code uses `steps/references.py`."""

from bonseyes_dagster.orchestration.steps.references import ArtifactRef

__all__ = ["ArtifactRef"]
