"""Starts runs for any process of Dagster: the coordinator queues or launches a run, the launcher starts its process."""
