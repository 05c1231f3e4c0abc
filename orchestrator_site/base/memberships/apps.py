"""The Django application of memberships."""

from django.apps import AppConfig


class MembershipsConfig(AppConfig):
    name = "orchestrator_site.base.memberships"
    label = "memberships"
    default_auto_field = "django.db.models.BigAutoField"
