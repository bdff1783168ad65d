"""One step: the op of a tool, the artifact that it orders and follows, and what is kept of it."""
