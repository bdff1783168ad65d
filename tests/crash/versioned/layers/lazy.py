"""A module beside the tool's own; it is imported while an artifact is made."""

VARIANT = "@a@"
