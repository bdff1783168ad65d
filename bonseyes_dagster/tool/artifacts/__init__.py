"""The artifacts on the volume of a container: the index, the folders, and their repair at a start."""
