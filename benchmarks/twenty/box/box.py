"""A tool that does nothing, or sleeps."""

import time


def create(artifact, *, seconds=0, after=None):
    """Sleep, then write one empty file."""
    time.sleep(seconds)
    artifact.path("empty").write_bytes(b"")
