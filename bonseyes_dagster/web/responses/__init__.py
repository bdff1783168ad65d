"""The way out: files, archives, points and logs, also to slow readers."""
