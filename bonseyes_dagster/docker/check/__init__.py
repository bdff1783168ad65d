"""`bonseyes check`: rules that tools, images, services and pipelines must fit together."""
