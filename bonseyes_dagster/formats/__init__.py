"""Readers and writers of text formats: JSON, JSON Schema, YAML, metric lines, regular expressions."""
