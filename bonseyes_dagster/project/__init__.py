"""The parts of a project that both ways of running it share: folder, state, environment, display, backup format."""
