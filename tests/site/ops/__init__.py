"""Tests of `orchestrator_site.ops`."""
