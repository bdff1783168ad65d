"""Functions of Linux other than files: sockets, hosts and users of connections, and control of processes."""
