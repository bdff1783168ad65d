"""The web layer of every container: the Flask application, its error answers and the artifact routes."""
