"""The sensor of the inbox: a run for each set of archives that arrives."""
