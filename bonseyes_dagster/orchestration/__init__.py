"""The only place that knows how Dagster runs things: ops, pipelines, executor, launcher."""
