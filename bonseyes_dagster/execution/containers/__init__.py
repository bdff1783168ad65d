"""A container for each run, where a deployment wants that."""
