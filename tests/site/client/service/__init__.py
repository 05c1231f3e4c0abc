"""Tests of `orchestrator_site.client.service`."""
