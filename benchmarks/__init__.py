"""Measures the project, beside a rival where there is one: `python -m benchmarks` or `make bench`."""
