"""The process that makes artifacts, one after the other, each in a child."""
