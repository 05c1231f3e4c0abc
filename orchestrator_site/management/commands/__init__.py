"""Commands of `orchestrator_site` for `manage.py`."""
