"""Files and folders on disk: sync, link, replace and remove them, and find writers and changes."""
