"""One step: the op of a tool, the request for its artifact, and the reference that the op returns."""
