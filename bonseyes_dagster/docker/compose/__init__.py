"""Readers of the compose files and Dockerfiles of a project."""
