"""HTTP with one Docker engine."""
