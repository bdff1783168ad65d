"""State of a run that does not depend on its executor: its name, process record and lease, its recovery and its end."""
