"""Dagster's instance: its settings, its tables, and connections that stay open."""
