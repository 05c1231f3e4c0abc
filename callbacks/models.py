"""The tables of callbacks: destinations, subscriptions, events and the attempts to deliver them (docs/architecture.md)."""

from enum import StrEnum
from typing import ClassVar
from uuid import UUID

from django.db import models
from django.db.models import Q
from uuid_utils.compat import uuid7

from orchestrator_site.base.db.encryption import EncryptedJSONField, EncryptedTextField


def new_event_id() -> UUID:
    """Return a unique id that sorts by time (RFC 9562, version 7)."""
    return uuid7()


class Destination(models.Model):
    """An origin that events are sent to, and the state of its breaker (`callbacks.rules.destination_breaker`).

    All processes share this row.
    """

    origin = models.TextField(unique=True, help_text="Scheme, host and port.")
    used_at = models.DateTimeField(help_text="When a stream last began to send there, to the hour.")
    paused = models.BooleanField(default=False, help_text="Whether an operator has paused it: nothing is sent.")
    failures = models.PositiveIntegerField(default=0, help_text="Attempts in a row without an answer or with a 5xx.")
    openings = models.PositiveIntegerField(default=0, help_text="How often the breaker has opened since the last good answer.")
    open_until = models.DateTimeField(null=True, help_text="When the breaker becomes half open; null while it is closed.")
    probe_token = models.UUIDField(null=True, help_text="The delivery that is the probe.")
    probe_until = models.DateTimeField(null=True, help_text="When the probe counts as dead.")
    throttles = models.PositiveIntegerField(default=0, help_text="429 answers in a row.")
    throttled_until = models.DateTimeField(null=True)
    window = models.PositiveSmallIntegerField(default=1, help_text="How many deliveries at once it may have.")
    slowness = models.PositiveSmallIntegerField(
        default=0, db_default=0, help_text="Seconds that its slowest answer took. Each quick answer halves them."
    )
    waiting = models.BooleanField(default=False, help_text="Whether streams may be waiting for it.")
    limited_until = models.DateTimeField(null=True, help_text="Nothing is sent before: it has got as much as it may.")
    revive_since = models.DateTimeField(null=True, help_text="Events that died at this time or later are to be redelivered …")
    revive_until = models.DateTimeField(null=True, help_text="… if they died at this time or earlier. Null if none is requested.")

    class Meta:
        indexes = [
            models.Index(fields=["open_until"], condition=Q(waiting=True), name="destination_waiting_idx"),
            models.Index(fields=["id"], condition=Q(revive_until__isnull=False), name="destination_revive_idx"),
            models.Index(fields=["id"], condition=Q(open_until__isnull=False), name="destination_open_idx"),
            models.Index(
                fields=["throttled_until"], condition=Q(throttled_until__isnull=False), name="destination_throttled_idx"
            ),
            models.Index(fields=["id"], condition=Q(paused=True), name="destination_paused_idx"),
        ]

    def __str__(self) -> str:
        return self.origin


class BreakerSample(models.Model):
    """How many breakers were open at once in a minute, for charts. The relays take one a minute and delete old ones."""

    minute = models.PositiveIntegerField(primary_key=True, help_text="Since 1970, by the database's clock.")
    open_breakers = models.PositiveIntegerField(help_text="The most that were open at once.")

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.open_breakers} in minute {self.minute}"


class OwnerKind(StrEnum):
    """Whom streams belong to."""

    KEY = "key"  # with which the stream was requested
    NAMESPACE = "namespace"


class Owner(models.Model):
    """A key or a namespace (`Subscription.owners`), and how much of the events of its streams may be sent.

    All processes share this row.
    """

    name = models.CharField(max_length=128, primary_key=True)
    limited_until = models.DateTimeField(null=True, help_text="Until then, all that may be sent was sent or is promised.")

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return self.name


class Subscription(models.Model):
    """A stream of events, and the URL that they are sent to in order.

    `next_attempt_at` is when the stream is due, and NULL if no event is pending. A stream that waits for its destination is due
    only when its first event expires; a slot that becomes free there makes it due at once.
    """

    SECRETS: ClassVar[tuple[str, ...]] = ("url", "key", "previous_key", "headers")  # of use to the delivery alone

    stream = models.UUIDField(unique=True)
    subject = models.CharField(max_length=128)
    owner = models.CharField(
        max_length=128, default="", db_default="", help_text="Its namespace, towards whose limit its events count."
    )
    client = models.CharField(
        max_length=64, default="", db_default="", help_text="A public name of the key towards whose limit they count, too."
    )
    url = EncryptedTextField()
    key = EncryptedTextField(null=True, help_text="Signs the events; null if they are not signed.")
    previous_key = EncryptedTextField(null=True, help_text="Signs them as well while the receiver changes to `key`; else null.")
    headers = EncryptedJSONField(null=True, help_text="Sent with each event; null if there are none.")
    destination = models.ForeignKey(Destination, on_delete=models.PROTECT, related_name="subscriptions", db_index=False)
    types = models.JSONField(default=list, help_text="The types of events to send; empty for all.")
    last_sequence = models.PositiveBigIntegerField(default=0)
    bulk_refused = models.BooleanField(
        default=False, help_text="Whether its last log event is dead: the next get one attempt each."
    )
    next_attempt_at = models.DateTimeField(null=True)
    waiting_since = models.DateTimeField(null=True, help_text="Its position in the queue for its destination.")
    promised = models.IntegerField(
        default=0, db_default=0, help_text="How many events it may send although its owners are at their limits …"
    )
    promised_at = models.DateTimeField(null=True, help_text="… from then on. They were charged when this was promised.")
    lease_token = models.UUIDField(null=True, help_text="The delivery that has the lease.")
    lease_until = models.DateTimeField(null=True, help_text="When the lease ends and the delivery counts as dead.")
    sending = models.UUIDField(null=True, help_text="The event that is being sent.")
    sending_since = models.DateTimeField(null=True)

    class Meta:
        indexes = [
            models.Index(fields=["next_attempt_at"], condition=Q(next_attempt_at__isnull=False), name="subscription_due_idx"),
            models.Index(fields=["destination"], name="subscription_destination_idx"),
            models.Index(fields=["subject"], name="subscription_subject_idx"),
            models.Index(fields=["destination"], condition=Q(lease_token__isnull=False), name="subscription_leased_idx"),
            models.Index(
                fields=["destination", "waiting_since"],
                condition=Q(waiting_since__isnull=False),
                name="subscription_waiting_idx",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.subject} to {self.destination}"

    @property
    def owners(self) -> dict[OwnerKind, str]:
        """The names of its owners' rows."""
        return {OwnerKind.KEY: f"{OwnerKind.KEY} {self.client}", OwnerKind.NAMESPACE: f"{OwnerKind.NAMESPACE} {self.owner}"}


class Event(models.Model):
    """A CloudEvent. `body` never changes: each attempt signs and sends exactly these bytes."""

    class State(models.TextChoices):
        PENDING = "pending"
        DELIVERED = "delivered"
        DEAD = "dead"

    id = models.UUIDField(primary_key=True, default=new_event_id, editable=False)
    subscription = models.ForeignKey(Subscription, on_delete=models.CASCADE, related_name="events")
    sequence = models.PositiveBigIntegerField()
    type = models.CharField(max_length=128)
    source = models.CharField(max_length=128)
    time = models.CharField(max_length=32, help_text="As in the body.")
    body = models.BinaryField()
    state = models.CharField(max_length=16, choices=State.choices, default=State.PENDING)
    tries = models.PositiveIntegerField(default=0, help_text="How many attempts were answered.")
    silences = models.PositiveIntegerField(default=0, help_text="How many attempts in a row were not answered.")
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField(help_text="When it is dead if it is still pending.")
    next_attempt_at = models.DateTimeField(null=True, help_text="When the next attempt is due, after a failed one.")
    settled_at = models.DateTimeField(null=True, help_text="When it was delivered or became dead.")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["subscription", "sequence"], name="event_sequence_unique"),
        ]
        indexes = [
            models.Index(fields=["subscription", "sequence"], condition=Q(state="pending"), name="event_pending_idx"),
            models.Index(fields=["subscription", "sequence"], condition=Q(state="dead"), name="event_dead_idx"),
            models.Index(fields=["settled_at"], condition=Q(state="dead"), name="event_dead_since_idx"),
            models.Index(fields=["expires_at"], condition=Q(state="pending"), name="event_oldest_pending_idx"),
        ]

    def __str__(self) -> str:
        return f"{self.type} {self.sequence}"


class Attempt(models.Model):
    """An attempt to deliver an event."""

    event = models.ForeignKey(Event, on_delete=models.CASCADE, related_name="attempts")
    time = models.DateTimeField()
    status = models.PositiveSmallIntegerField(null=True, help_text="Of the answer; null if there was none.")
    latency_ms = models.PositiveIntegerField()
    error = models.CharField(max_length=512, blank=True)
    answer = models.TextField(blank=True, help_text="The start of the answer's body.")

    class Meta:
        ordering = ["pk"]

    def __str__(self) -> str:
        return str(self.status or self.error)
