"""The site as a Django application, which registers the system checks."""

from django.apps import AppConfig
from django.core.checks import Tags, register


class SiteConfig(AppConfig):
    name = "orchestrator_site"

    def ready(self) -> None:
        # They need the models, which are loaded only now.
        from orchestrator_site.checks import check_api_keys, check_open_api, check_secrets

        register(check_api_keys, Tags.security, deploy=True)  # it asks the database
        register(check_open_api, Tags.security, deploy=True)  # the log has it at each start
        register(check_secrets, Tags.database)
