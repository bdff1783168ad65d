"""What Linux offers beside files: sockets, the names and users of connections, and control of processes."""
