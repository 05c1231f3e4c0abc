"""Requests of browsers: the API documentation, errors of the admin, security headers and cross-site protection."""
