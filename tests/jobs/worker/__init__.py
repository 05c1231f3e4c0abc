"""Tests of `jobs.worker`."""
