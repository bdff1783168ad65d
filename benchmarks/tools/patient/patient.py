"""A tool that runs for a given time."""

import time


def create(artifact, *, seconds):
    """Write a file of 64 MiB. Then print a line every half second."""
    artifact.path("noise").write_bytes(bytes(64 << 20))
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        print("still waiting")
        time.sleep(0.5)
