"""What the command prints: tables, progress, benchmarks, and the text of servers made harmless."""
