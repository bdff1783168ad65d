"""The project as containers: what the compose files say, and the commands that build, check, run and keep it."""
