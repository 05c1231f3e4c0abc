"""Tests of `callbacks.rules`."""
