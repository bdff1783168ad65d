"""Readers of requests: queries, bodies and uploads."""
