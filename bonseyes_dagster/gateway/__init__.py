"""The gateway, which has the only open port of a project: its routes and its access rules."""
