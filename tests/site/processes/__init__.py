"""Tests of `orchestrator_site.base`."""
