"""Admin pages for destinations, subscriptions and events with their attempts.

Rows are read-only. Actions need the permission to change the model and use POST. Keys and the secret parts of URLs are not shown.
"""

from callbacks.admin import destination_pages, event_pages

__all__ = ["destination_pages", "event_pages"]
