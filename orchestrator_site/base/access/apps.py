"""The Django application of namespaces and API keys."""

from django.apps import AppConfig


class AccessConfig(AppConfig):
    name = "orchestrator_site.base.access"
    label = "access"
    verbose_name = "Access"
    default_auto_field = "django.db.models.BigAutoField"
