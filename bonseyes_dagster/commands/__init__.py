"""The commands of a project: `bonseyes up`, `down`, `status`, `logs`, `build`, `check`, `backup`, `restore`."""
