"""The embedded default: the whole project as processes on this machine."""
