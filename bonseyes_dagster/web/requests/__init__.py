"""The way in: queries, bodies and uploads of a request."""
