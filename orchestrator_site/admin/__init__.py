"""The admin's pages that belong to no other application. Django imports this package to register them."""

from django.contrib import admin

from orchestrator_site.admin import accounts, api_keys, namespaces, recent_actions

__all__ = ["accounts", "api_keys", "namespaces", "recent_actions"]

admin.site.index_template = "orchestrator_site/start_page/page.html"
admin.site.index_title = "Overview"
