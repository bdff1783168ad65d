"""Inside a tool container: description, parameters, store, queue, worker and the author's API."""
