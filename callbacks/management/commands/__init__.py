"""Commands of `callbacks` for `manage.py`."""
