"""The project in Docker: build its images, check its files, start, stop, back up and restore its containers."""
