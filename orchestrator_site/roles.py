"""The permissions that `manage.py migrate` creates, and the two groups of users: who may look and act, and who may only look.

A group is created with all its permissions. After that an administrator may change it: of a group that exists, `migrate` changes
nothing, except that it grants the permissions which the same run creates, for a new kind of page. What an administrator took
from a group, it does not get back. A group that was deleted is created again, and the log says so.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from django.apps import apps
from django.contrib.auth.management import create_permissions
from django.contrib.auth.models import Group, Permission
from django.db import transaction
from django.db.models import Q
from django.db.models.signals import post_migrate

logger = logging.getLogger(__name__)

OPERATORS: Final = "Operators"
VIEWERS: Final = "Viewers"

# The permission to change such a row lets a user run the actions of its page; no field can be edited.
_OPERATED: Final = {"jobs": ("job", "node"), "callbacks": ("destination", "subscription", "event")}
_VIEWED: Final = Q(content_type__app_label__in=("jobs", "callbacks")) | Q(
    content_type__app_label="admin", content_type__model="logentry"
)
_RECEIVER: Final = "django.contrib.auth.management.create_permissions"


@contextmanager
def no_permissions_created() -> Iterator[None]:
    """Keep Django from creating permissions after migrations: `update_roles` does, in the transaction that grants them."""
    connected = post_migrate.disconnect(dispatch_uid=_RECEIVER)
    try:
        yield
    finally:
        if connected:
            post_migrate.connect(create_permissions, dispatch_uid=_RECEIVER)


def update_roles(database: str, verbosity: int = 0) -> None:
    """Create the permissions and groups that do not exist, and grant new permissions to the groups that do.

    All of it is one transaction: after a crash, the next run still knows which permissions are new.
    """
    created = []
    with transaction.atomic(using=database):
        known = set(Permission.objects.using(database).values_list("pk", flat=True))
        for app in apps.get_app_configs():
            create_permissions(app, verbosity=verbosity, interactive=False, using=database)
        for name, allowed in ((OPERATORS, _viewing() | _operating()), (VIEWERS, _viewing())):
            group, is_new = Group.objects.using(database).get_or_create(name=name)
            granted = Permission.objects.using(database).filter(allowed)
            group.permissions.add(*(granted if is_new else granted.exclude(pk__in=known)))
            if is_new:
                created.append(name)
    for name in created:
        logger.info("the group %s was created", name)


def _viewing() -> Q:
    return _VIEWED & Q(codename__startswith="view_")


def _operating() -> Q:
    allowed = Q(pk__in=[])
    for app, models in _OPERATED.items():
        allowed |= Q(content_type__app_label=app, codename__in=[f"change_{model}" for model in models])
    return allowed
