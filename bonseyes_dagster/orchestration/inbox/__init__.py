"""The sensor of the inbox: it launches a run for each set of archives that arrives."""
