"""Tests of `jobs.running`."""
