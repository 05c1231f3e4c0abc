"""Base classes for the admin: which filters a list accepts, and pages that show rows without changing them."""

from typing import Any

from django.contrib.admin import ShowFacets
from django.contrib.auth import get_permission_codename
from django.contrib.auth.models import User
from django.db.models import Model
from django.http import HttpRequest


class ListedLookups:
    """Accepts only the filters that `list_filter` offers.

    Django accepts any field and lookup, even of fields that the admin hides: their values could be guessed letter by letter.
    """

    show_facets = ShowFacets.NEVER  # they count rows for each choice, whenever a request asks for it

    def lookup_allowed(self, lookup: str, value: object, request: HttpRequest) -> bool:  # noqa: ARG002 - Django's signature
        offered = self.get_list_filter(request)  # type: ignore[attr-defined]
        return any(lookup in _parameters(self.model, name) for name in offered)  # type: ignore[attr-defined]


def _parameters(model: type[Model], name: str) -> set[str]:
    """Return the parameters that a filter for this field uses in its links."""
    field: Any = model._meta.get_field(name)
    exactly = {f"{name}__{field.target_field.name}__exact"} if field.is_relation else {name, f"{name}__exact"}
    return exactly | {f"{name}__isnull"}


class ReadOnly(ListedLookups):
    """Staff with the right to view may look; nobody may add, change or delete."""

    def has_add_permission(self, *_: Any) -> bool:
        return False

    def has_change_permission(self, *_: Any) -> bool:
        return False

    def has_delete_permission(self, *_: Any) -> bool:
        return False

    def has_operate_permission(self, request: HttpRequest, *_: Any) -> bool:
        """Whether somebody may use the actions of the page: those whom Django lets change such rows."""
        options = self.model._meta  # type: ignore[attr-defined]
        user: User = request.user  # type: ignore[assignment]
        return user.has_perm(f"{options.app_label}.{get_permission_codename('change', options)}")
