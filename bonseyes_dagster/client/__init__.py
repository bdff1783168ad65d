"""The Python client of the artifact API and the `bonseyes` command."""
