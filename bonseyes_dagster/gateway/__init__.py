"""The only open port: routes and access rules."""
