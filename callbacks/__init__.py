"""Delivers events to URLs: in order, at least once; knows nothing of jobs."""
