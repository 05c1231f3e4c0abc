"""Tests of `orchestrator_site.client`, without a real service: those are in `tests/acceptance/test_command_line.py`."""
