"""The web server: gunicorn's worker with one thread that waits for all clients."""
