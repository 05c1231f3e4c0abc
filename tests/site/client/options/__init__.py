"""Tests of `orchestrator_site.client.options`."""
