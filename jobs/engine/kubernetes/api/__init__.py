"""Requests to the API server, and what its watches report."""
