"""Starts a process for each run, forked from a server that has loaded Dagster and the definitions."""
