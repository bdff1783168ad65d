"""A module in a folder that the tool names under `code`; it is imported while an artifact is made."""

VARIANT = "@a@"
