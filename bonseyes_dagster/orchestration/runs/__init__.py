"""The runs of a pipeline in Dagster's storage: find, start, read, cancel and delete them."""
