"""Commands of `jobs` for `manage.py`."""
