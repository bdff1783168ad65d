"""The embedded project, which is the default: all services run as processes on this machine."""
