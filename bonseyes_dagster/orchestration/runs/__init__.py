"""A pipeline's runs as Dagster stores them: found, started, read, cancelled and deleted."""
