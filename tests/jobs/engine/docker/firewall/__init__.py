"""Tests of `jobs.engine.docker.firewall`."""
