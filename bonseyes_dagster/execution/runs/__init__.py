"""What is known of a run, whoever executes it: its name, its record, its lease, how it goes on and how it ends."""
