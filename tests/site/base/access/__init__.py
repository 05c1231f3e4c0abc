"""Tests of `orchestrator_site.base.access`."""
