"""Dagster's instance: its settings, its tables, and storages that keep connections open."""
