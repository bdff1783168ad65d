"""A tool that does nothing."""


def create(artifact):
    """Write one empty file."""
    artifact.path("empty").write_bytes(b"")
