"""Base classes for admin pages: lists with a fixed set of filters, and pages on which rows are read-only."""

from typing import Any

from django.contrib.admin import ShowFacets
from django.contrib.auth import get_permission_codename
from django.contrib.auth.models import User
from django.db.models import Model
from django.http import HttpRequest


class ListedLookups:
    """A list that accepts only the filters in `list_filter`.

    Django accepts lookups of any field, hidden ones included: their values could be guessed letter by letter.
    """

    show_facets = ShowFacets.NEVER  # any request could have the rows counted for each choice

    def lookup_allowed(self, lookup: str, value: object, request: HttpRequest) -> bool:  # noqa: ARG002 - Django's signature
        offered = self.get_list_filter(request)  # type: ignore[attr-defined]
        return any(lookup in _parameters(self.model, name) for name in offered)  # type: ignore[attr-defined]


def _parameters(model: type[Model], name: Any) -> set[str]:
    """Return the query parameters that a filter for this field, or of this class, uses."""
    if not isinstance(name, str):
        return {name.parameter_name}
    field: Any = model._meta.get_field(name)
    exactly = {f"{name}__{field.target_field.name}__exact"} if field.is_relation else {name, f"{name}__exact"}
    return exactly | {f"{name}__isnull"}


class ReadOnly(ListedLookups):
    """A page on which rows can be viewed and operated, but not added, changed or deleted."""

    def has_add_permission(self, *_: Any) -> bool:
        return False

    def has_change_permission(self, *_: Any) -> bool:
        return False

    def has_delete_permission(self, *_: Any) -> bool:
        return False

    def has_operate_permission(self, request: HttpRequest, *_: Any) -> bool:
        """Return True if the user may run the actions of the page: the permission to change the model allows it."""
        options = self.model._meta  # type: ignore[attr-defined]
        user: User = request.user  # type: ignore[assignment]
        return user.has_perm(f"{options.app_label}.{get_permission_codename('change', options)}")
