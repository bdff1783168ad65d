"""A tool that does nothing."""


def create(artifact):
    """Leave one small file."""
    artifact.path("empty").write_bytes(b"")
