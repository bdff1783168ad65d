"""`bonseyes check`: whether tools, images, services and pipelines of a project fit together."""
