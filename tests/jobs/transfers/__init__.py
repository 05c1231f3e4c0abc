"""Tests of `jobs.transfers`."""
