"""Copies the log of a job's container into the database and its events."""
