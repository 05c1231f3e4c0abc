"""For admin classes of rows that change by what happens, not by hand."""

from typing import Any

from django.contrib.auth import get_permission_codename
from django.contrib.auth.models import User
from django.http import HttpRequest


class ReadOnly:
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
