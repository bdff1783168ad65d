"""The pipeline container: /task, /runs, /containers and /artifacts over Dagster's instance."""
