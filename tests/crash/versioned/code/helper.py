"""A module in a folder that tool.yml lists under `code`. The tool imports it while it makes an artifact."""

VARIANT = "@a@"
