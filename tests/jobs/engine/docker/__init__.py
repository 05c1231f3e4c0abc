"""Tests of `jobs.engine.docker`."""
