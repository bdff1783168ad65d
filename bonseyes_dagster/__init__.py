"""Machine-learning pipelines as Dagster jobs over tool containers that speak one HTTP artifact API."""

__version__ = "0.1.0"
