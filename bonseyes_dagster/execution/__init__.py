"""How Dagster runs things here, fast and through crashes. Knows nothing of tools, pipelines or artifacts."""
