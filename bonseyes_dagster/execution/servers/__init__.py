"""Starts Dagster's code server and webserver for the project."""
