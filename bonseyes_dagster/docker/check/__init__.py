"""`bonseyes check`: whether tools, images, services and pipelines fit together."""
