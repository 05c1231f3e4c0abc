"""Tests of `orchestrator_site.web`."""
