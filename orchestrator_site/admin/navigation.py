"""The menu beside the admin's pages: what a user may see, in the order in which it is needed."""

from typing import Any, Final

from django.http import HttpRequest
from django.urls import reverse

# Title, icon (of Material Symbols, which unfold has), page, and the permission that it needs.
_GROUPS: Final[dict[str, list[tuple[str, str, str, str | None]]]] = {
    "": [("Overview", "dashboard", "index", None)],
    "Jobs": [
        ("Jobs", "deployed_code", "jobs_job_changelist", "jobs.view_job"),
        ("Nodes", "dns", "jobs_node_changelist", "jobs.view_node"),
        ("Workers", "manufacturing", "jobs_worker_changelist", "jobs.view_worker"),
    ],
    "Callbacks": [
        ("Events", "mail", "callbacks_event_changelist", "callbacks.view_event"),
        ("Destinations", "call_made", "callbacks_destination_changelist", "callbacks.view_destination"),
        ("Subscriptions", "rss_feed", "callbacks_subscription_changelist", "callbacks.view_subscription"),
    ],
    "Access": [
        ("API keys", "key", "access_apikey_changelist", "access.view_apikey"),
        ("Namespaces", "workspaces", "access_namespace_changelist", "access.view_namespace"),
    ],
    "Administration": [
        ("Recent actions", "history", "admin_logentry_changelist", "admin.view_logentry"),
        ("Users", "person", "auth_user_changelist", "auth.view_user"),
        ("Groups", "group", "auth_group_changelist", "auth.view_group"),
    ],
}


def navigation(request: HttpRequest) -> list[dict[str, Any]]:
    """Return the groups of the menu with the pages that the user may see (unfold's `SIDEBAR`)."""
    groups = []
    for title, pages in _GROUPS.items():
        items = [
            {"title": name, "icon": icon, "link": reverse(f"admin:{page}")}
            for name, icon, page, permission in pages
            if permission is None or request.user.has_perm(permission)
        ]
        if items:
            groups.append({"title": title, "items": items})
    return groups
