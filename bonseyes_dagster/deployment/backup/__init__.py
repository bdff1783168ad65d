"""`bonseyes backup` and `bonseyes restore`: all that a project keeps, as a folder of its own, and back."""
