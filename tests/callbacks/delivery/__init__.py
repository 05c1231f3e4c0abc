"""Tests of `callbacks.delivery`."""
