"""What Dagster knows of this project: pipelines, the ops of tools, and the runs that come of them."""
