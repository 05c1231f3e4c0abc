"""`manage.py operator`: create the first user of the admin."""

import secrets
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand

USERNAME = "operator"


class Command(BaseCommand):
    help = "If the database has no users, create one for the admin and print its password once."

    def handle(self, *args: Any, **options: Any) -> None:
        users = get_user_model()
        if users.objects.exists():
            return
        password = secrets.token_urlsafe(12)
        user, is_new = users.objects.get_or_create(username=USERNAME, defaults={"is_staff": True, "is_superuser": True})
        if not is_new:  # another process has created it and prints the password
            return
        user.set_password(password)
        user.save(update_fields=["password"])
        self.stdout.write(f"Login  {USERNAME} / {password}   (shown only once)")
