"""The table of memberships. It refers to users, whose tables only `web` knows."""

from django.conf import settings
from django.db import models

from orchestrator_site.base.access.models import Namespace


class Membership(models.Model):
    """Restricts a user of the admin to the jobs of a namespace. It has no effect on superusers."""

    user = models.OneToOneField(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="membership")
    namespace = models.ForeignKey(
        Namespace, on_delete=models.PROTECT, related_name="members", help_text="The user sees the jobs of this namespace only."
    )

    class Meta:
        verbose_name = "namespace"  # as the page of the user names it

    def __str__(self) -> str:
        return self.namespace_id
