"""A project on disk, however it runs: its folder, the record of what is up, its environment, the format of a backup."""
