"""Executes a run in one process: each step has a thread, with its own streams and logs."""
