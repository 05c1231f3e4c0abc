"""Namespaces and API keys, and the namespace `default`."""

from typing import Any

import django.core.validators
import django.db.models.deletion
import django.utils.timezone
from django.db import migrations, models


def create_default(apps: Any, schema_editor: Any) -> None:
    apps.get_model("access", "Namespace").objects.using(schema_editor.connection.alias).create(name="default")


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="Namespace",
            fields=[
                (
                    "name",
                    models.CharField(
                        max_length=63,
                        primary_key=True,
                        serialize=False,
                        validators=[
                            django.core.validators.RegexValidator(
                                "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\\Z",
                                "The name must have 1 to 63 lower-case letters, digits and '-', and begin and end with a letter or digit.",
                            )
                        ],
                    ),
                ),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now, editable=False, verbose_name="created")),
            ],
            options={
                "ordering": ["name"],
            },
        ),
        migrations.CreateModel(
            name="ApiKey",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("name", models.CharField(help_text="Who or what uses it.", max_length=128)),
                ("prefix", models.CharField(help_text="How the key begins.", max_length=16, unique=True)),
                ("digest", models.CharField(help_text="SHA-256 of the key, which has 256 random bits.", max_length=64)),
                ("read_only", models.BooleanField(default=False, help_text="Whether it may only read.")),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now, editable=False, verbose_name="created")),
                (
                    "expires_at",
                    models.DateTimeField(blank=True, help_text="Empty if it does not expire.", null=True, verbose_name="expires"),
                ),
                (
                    "last_used_at",
                    models.DateTimeField(editable=False, help_text="To the minute.", null=True, verbose_name="last used"),
                ),
                ("revoked_at", models.DateTimeField(editable=False, null=True, verbose_name="revoked")),
                (
                    "namespace",
                    models.ForeignKey(
                        blank=True,
                        help_text="Empty for all namespaces.",
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="keys",
                        to="access.namespace",
                    ),
                ),
            ],
            options={
                "verbose_name": "API key",
            },
        ),
        migrations.RunPython(create_default, migrations.RunPython.noop),
    ]
