"""Django settings of the processes that serve no API: without what only `web` needs, which would take 25 MB in each of them."""

from orchestrator_site.settings import *  # noqa: F403

INSTALLED_APPS = ["django.contrib.sessions", "orchestrator_site", "orchestrator_site.base.access", "callbacks", "jobs"]
