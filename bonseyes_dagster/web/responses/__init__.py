"""Writers of answers: files, archives, points and logs, also for slow clients."""
