"""Migrations of `callbacks`."""
