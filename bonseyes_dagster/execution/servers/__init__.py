"""Dagster's code server and webserver, as the project starts them."""
