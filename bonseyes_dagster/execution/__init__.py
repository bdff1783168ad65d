"""Executes Dagster's runs fast, and through crashes. This package does not know tools, pipelines or artifacts."""
