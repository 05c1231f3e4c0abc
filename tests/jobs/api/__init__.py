"""Tests of `jobs.api`."""
