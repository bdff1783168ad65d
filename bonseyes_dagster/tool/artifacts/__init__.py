"""The artifacts on the volume of a container: the index, the folders, and what a start finds and mends."""
