"""The worker process: it makes one artifact after the other, each in a child process."""
