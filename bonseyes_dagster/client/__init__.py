"""The Python client of the artifact API, and the `bonseyes` command. This module exports all public names."""

from __future__ import annotations

from bonseyes_dagster.client._artifact import Artifact
from bonseyes_dagster.client._container import Container
from bonseyes_dagster.client._multipart import FileSource
from bonseyes_dagster.client._project import Project
from bonseyes_dagster.client.addresses import Addresses

__all__ = ["Addresses", "Artifact", "Container", "FileSource", "Project"]
