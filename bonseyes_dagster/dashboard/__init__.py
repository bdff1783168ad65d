"""The dashboard container: the registry of containers and the web UI."""
