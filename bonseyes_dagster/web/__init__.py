"""The Flask layer that every container shares: app, errors and the uniform artifact routes."""
