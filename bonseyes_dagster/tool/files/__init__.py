"""Files and folders on disk: durable, complete, and not changed by anybody meanwhile."""
