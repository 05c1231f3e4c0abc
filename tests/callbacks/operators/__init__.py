"""Tests of `callbacks.operators`."""
