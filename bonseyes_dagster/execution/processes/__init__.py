"""A process for each run, forked from a server that has everything loaded."""
