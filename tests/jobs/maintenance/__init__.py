"""Tests of `jobs.maintenance`."""
