"""The admin's pages that belong to no other application. Django imports this package to register them."""

from django.contrib import admin

from orchestrator_site.admin import accounts, api_keys, namespaces, recent_actions
from orchestrator_site.admin.login import LoginForm

__all__ = ["accounts", "api_keys", "namespaces", "recent_actions"]

admin.site.index_template = "orchestrator_site/start_page/page.html"
admin.site.index_title = "Overview"
admin.site.login_form = LoginForm  # not by UNFOLD's LOGIN, which imports it, and with it this package, before there is a site
