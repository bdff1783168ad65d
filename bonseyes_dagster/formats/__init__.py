"""The formats of texts that are read and written here: JSON, JSON Schema, YAML, metrics, patterns."""
