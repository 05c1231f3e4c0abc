"""Tests of `orchestrator_site.browsers`."""
