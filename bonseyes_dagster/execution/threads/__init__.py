"""A run in one process: each step in a thread, with streams and logs of its own."""
