"""Tests of `callbacks.api`."""
