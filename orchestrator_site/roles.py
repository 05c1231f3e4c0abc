"""The two groups of users that `manage.py migrate` creates: who may look and act, and who may only look.

A group is created with all its permissions. After that an administrator may change it: of a group that exists, `migrate` changes
nothing, except that it grants the permissions which the same run has created, for a new kind of page. What an administrator took
from a group, it does not get back. A group that was deleted is created again, and the log says so.
"""

import logging
from collections.abc import Collection
from typing import Final

from django.contrib.auth.models import Group, Permission
from django.db import connections, transaction
from django.db.models import Q

logger = logging.getLogger(__name__)

OPERATORS: Final = "Operators"
VIEWERS: Final = "Viewers"

# The permission to change such a row lets a user run the actions of its page; no field can be edited.
_OPERATED: Final = {"jobs": ("job", "node"), "callbacks": ("destination", "subscription", "event")}
_VIEWED: Final = Q(content_type__app_label__in=("jobs", "callbacks")) | Q(
    content_type__app_label="admin", content_type__model="logentry"
)


def permission_ids(database: str) -> set[int]:
    """Return the permissions that exist. On a new database there are none, nor a table of them."""
    if Permission._meta.db_table not in connections[database].introspection.table_names():
        return set()
    return set(Permission.objects.using(database).values_list("pk", flat=True))


def update_roles(database: str, known: Collection[int]) -> None:
    """Create the groups that do not exist, and grant to those that do the permissions that are not in `known`."""
    for name, allowed in ((OPERATORS, _viewing() | _operating()), (VIEWERS, _viewing())):
        with transaction.atomic(using=database):
            group, is_new = Group.objects.using(database).get_or_create(name=name)
            granted = Permission.objects.using(database).filter(allowed)
            group.permissions.add(*(granted if is_new else granted.exclude(pk__in=known)))
        if is_new:
            logger.info("the group %s was created", name)


def _viewing() -> Q:
    return _VIEWED & Q(codename__startswith="view_")


def _operating() -> Q:
    allowed = Q(pk__in=[])
    for app, models in _OPERATED.items():
        allowed |= Q(content_type__app_label=app, codename__in=[f"change_{model}" for model in models])
    return allowed
