"""What users who belong to a namespace may do in the admin: of their permissions, those of jobs count, and only for its jobs."""

from typing import Any, Final

from django.contrib.auth.backends import ModelBackend
from django.http import HttpRequest

from orchestrator_site.base.memberships.models import Membership

_KEPT: Final = frozenset({"jobs.view_job", "jobs.change_job"})


def namespace_of(user: Any) -> str | None:
    """Return the namespace to which a user is restricted, None for one who sees all. It is read once for each request."""
    if not hasattr(user, "_restricted_to"):
        is_restricted = user.is_authenticated and not (user.is_active and user.is_superuser)
        names = Membership.objects.filter(user=user.pk).values_list("namespace_id", flat=True) if is_restricted else []
        user._restricted_to = next(iter(names), None)
    restricted_to: str | None = user._restricted_to
    return restricted_to


def namespace_of_request(request: HttpRequest) -> str | None:
    """Return the namespace to which the user of a request is restricted, None if the user sees all."""
    return namespace_of(request.user)


class RestrictingBackend(ModelBackend):
    """Django's users and permissions, of which a restricted user keeps few, whatever groups the user is in."""

    def get_all_permissions(self, user_obj: Any, obj: Any = None) -> set[str]:
        permissions: set[str] = super().get_all_permissions(user_obj, obj)
        return permissions if namespace_of(user_obj) is None else permissions & _KEPT
