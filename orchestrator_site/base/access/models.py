"""The tables of namespaces and of the API keys that are made in the admin."""

from typing import Final

from django.core.validators import MaxValueValidator, MinValueValidator, RegexValidator
from django.db import models
from django.utils import timezone

DEFAULT: Final = "default"  # the namespace of whatever was made in no other, and of the keys in API_KEY_FILE
NAME_LENGTH: Final = 63
NAME_PATTERN: Final = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"  # a label of a domain name, as in Kubernetes
NAME_RULE: Final = "must have 1 to 63 lower-case letters, digits and '-', and begin and end with a letter or digit"


def _limit(name: str, low: int, high: int, help_text: str) -> "models.PositiveIntegerField[int | None, int | None]":
    validators = [MinValueValidator(low), MaxValueValidator(high)]
    return models.PositiveIntegerField(
        name, null=True, blank=True, validators=validators, help_text=f"{help_text} Empty for no limit."
    )


class Namespace(models.Model):
    """The jobs and keys of one team. Its name never changes, and it is never deleted: jobs and logs contain the name."""

    name = models.CharField(
        max_length=NAME_LENGTH, primary_key=True, validators=[RegexValidator(rf"^{NAME_PATTERN}\Z", f"The name {NAME_RULE}.")]
    )
    created_at = models.DateTimeField("created", default=timezone.now, editable=False)
    max_running = _limit("jobs at once", 1, 1_000_000, "Jobs that may run or be prepared at once; more wait.")
    max_cpu_millis = _limit(
        "CPU (thousandths of a core)", 10, 1_000_000_000, "Thousandths of a core that may be reserved at once."
    )
    max_memory_mib = _limit("memory (MiB)", 6, 1_000_000_000, "MiB of memory that may be reserved at once.")
    max_undecided = _limit(
        "undecided jobs", 1, 100_000, "Jobs that may wait or run. One more is refused, and its client told to try again later."
    )

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class ApiKey(models.Model):
    """An API key, of which only a digest is stored. What it may do never changes: it is revoked, and another one made."""

    name = models.CharField(max_length=128, help_text="Who or what uses it.")
    prefix = models.CharField(max_length=16, unique=True, help_text="How the key begins.")
    digest = models.CharField(max_length=64, help_text="SHA-256 of the key, which has 256 random bits.")
    namespace = models.ForeignKey(
        Namespace, null=True, blank=True, on_delete=models.PROTECT, related_name="keys", help_text="Empty for all namespaces."
    )
    read_only = models.BooleanField(default=False, help_text="Whether it may only read.")
    created_at = models.DateTimeField("created", default=timezone.now, editable=False)
    expires_at = models.DateTimeField("expires", null=True, blank=True, help_text="Empty if it does not expire.")
    last_used_at = models.DateTimeField("last used", null=True, editable=False, help_text="To the minute.")
    revoked_at = models.DateTimeField("revoked", null=True, editable=False)

    class Meta:
        verbose_name = "API key"

    def __str__(self) -> str:
        return f"{self.prefix}… ({self.name})"
