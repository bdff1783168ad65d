"""The parts of a run that are the same for every executor: name, process record, lease, recovery and end."""
