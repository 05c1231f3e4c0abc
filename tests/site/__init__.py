"""Tests of `orchestrator_site`."""
