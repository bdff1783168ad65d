"""How any process of Dagster has a run started: through the run server, at once or when there is room."""
