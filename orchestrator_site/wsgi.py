"""The WSGI application."""

import os

import django
from django.core.handlers.wsgi import WSGIHandler
from django.urls import get_resolver

from orchestrator_site.base.http.media_types import Request

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "orchestrator_site.settings")


class Application(WSGIHandler):
    """Django, with requests of a class of our own."""

    request_class = Request


django.setup(set_prefix=False)
application = Application()
get_resolver().url_patterns  # noqa: B018 - load all views now instead of in each of the processes that are forked
