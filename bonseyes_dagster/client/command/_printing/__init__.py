"""The output of the command: tables, progress, benchmarks, and text of servers that is made safe for a terminal."""
