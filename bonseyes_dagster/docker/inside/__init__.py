"""Programs inside the containers of a docker project: preparation, the daemon's health check, the socket proxy."""
