"""Tests of `callbacks`."""
