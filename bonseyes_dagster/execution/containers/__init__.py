"""Starts a container for each run, where the docker project is configured so."""
