"""The code of the tool: load it, hash it for the version, and watch it for changes."""
