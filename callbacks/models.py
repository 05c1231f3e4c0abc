"""Who is told, what they are told, and how each try went (docs/architecture.md)."""

from typing import ClassVar
from uuid import UUID

from django.db import models
from django.db.models import Q
from uuid_utils.compat import uuid7

from orchestrator_site.base.db.encryption import EncryptedJSONField, EncryptedTextField


def new_event_id() -> UUID:
    """Unique for ever, and ordered by time (RFC 9562, version 7)."""
    return uuid7()


class Destination(models.Model):
    """One origin that streams go to, and what it is known to take now (`callbacks.rules.destination_breaker`).

    All processes share the row.
    """

    origin = models.TextField(unique=True, help_text="Scheme, host and port.")
    used_at = models.DateTimeField(help_text="When a stream began to go there, to the hour.")
    paused = models.BooleanField(default=False, help_text="By an operator: nothing is sent.")
    failures = models.PositiveIntegerField(default=0, help_text="Tries in a row without an answer, or with a 5xx.")
    openings = models.PositiveIntegerField(default=0, help_text="How often the breaker has opened since it last answered well.")
    open_until = models.DateTimeField(null=True, help_text="Then one probe at a time may go; empty: the breaker is closed.")
    probe_token = models.UUIDField(null=True, help_text="The delivery that is the probe.")
    probe_until = models.DateTimeField(null=True, help_text="Then that probe counts as dead.")
    throttles = models.PositiveIntegerField(default=0, help_text="Answers in a row that asked to slow down.")
    throttled_until = models.DateTimeField(null=True)
    window = models.PositiveSmallIntegerField(default=1, help_text="How many deliveries it is trusted with at once.")
    slowness = models.PositiveSmallIntegerField(
        default=0, db_default=0, help_text="Seconds that a slow answer took; each quick one halves them."
    )
    waiting = models.BooleanField(default=False, help_text="Streams may wait for it.")
    revive_since = models.DateTimeField(null=True, help_text="An operator wants what died from here on to be sent again, …")
    revive_until = models.DateTimeField(null=True, help_text="… up to here; null: nothing (more) is to be done.")

    class Meta:
        indexes = [
            models.Index(fields=["open_until"], condition=Q(waiting=True), name="destination_waiting_idx"),
            models.Index(fields=["id"], condition=Q(revive_until__isnull=False), name="destination_revive_idx"),
        ]

    def __str__(self) -> str:
        return self.origin


class Subscription(models.Model):
    """One stream of events and the URL that they go to, in order.

    `next_attempt_at` says when there is something to do, and is NULL when nothing is pending. A stream that waits for
    its destination is due when its first event would be too old; whoever makes room there makes it due at once.
    """

    SECRETS: ClassVar = ("url", "key", "previous_key", "headers")  # deferred by all but the delivery itself

    stream = models.UUIDField(unique=True)
    subject = models.CharField(max_length=128)
    url = EncryptedTextField()
    key = EncryptedTextField(null=True, help_text="Signs the events; null: they are not signed.")
    previous_key = EncryptedTextField(null=True, help_text="Signs them as well, while the receiver changes to `key`.")
    headers = EncryptedJSONField(null=True, help_text="Sent with each event; null: none.")
    destination = models.ForeignKey(Destination, on_delete=models.PROTECT, related_name="subscriptions", db_index=False)
    types = models.JSONField(default=list, help_text="The types of events it takes; empty: all.")
    last_sequence = models.PositiveBigIntegerField(default=0)
    bulk_refused = models.BooleanField(default=False, help_text="Its last bulk event died: the next ones get one try each.")
    next_attempt_at = models.DateTimeField(null=True)
    waiting_since = models.DateTimeField(null=True, help_text="Its place in the queue for its destination.")
    lease_token = models.UUIDField(null=True, help_text="The delivery that works on it.")
    lease_until = models.DateTimeField(null=True, help_text="Then that delivery counts as dead.")
    sending = models.UUIDField(null=True, help_text="The event that it sends.")
    sending_since = models.DateTimeField(null=True)

    class Meta:
        indexes = [
            models.Index(fields=["next_attempt_at"], condition=Q(next_attempt_at__isnull=False), name="subscription_due_idx"),
            models.Index(fields=["destination"], name="subscription_destination_idx"),
            models.Index(fields=["destination"], condition=Q(lease_token__isnull=False), name="subscription_leased_idx"),
            models.Index(
                fields=["destination", "waiting_since"],
                condition=Q(waiting_since__isnull=False),
                name="subscription_waiting_idx",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.subject} to {self.destination}"


class Event(models.Model):
    """One CloudEvent. `body` is frozen: exactly these bytes are signed and sent, however often."""

    class State(models.TextChoices):
        PENDING = "pending"
        DELIVERED = "delivered"
        DEAD = "dead"

    id = models.UUIDField(primary_key=True, default=new_event_id, editable=False)
    subscription = models.ForeignKey(Subscription, on_delete=models.CASCADE, related_name="events")
    sequence = models.PositiveBigIntegerField()
    type = models.CharField(max_length=128)
    source = models.CharField(max_length=128)
    time = models.CharField(max_length=32, help_text="As it is in the body.")
    body = models.BinaryField()
    state = models.CharField(max_length=16, choices=State.choices, default=State.PENDING)
    tries = models.PositiveIntegerField(default=0, help_text="How many the destination answered.")
    silences = models.PositiveIntegerField(default=0, help_text="How many it has not answered, in a row.")
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField(help_text="Pending then, it is dead.")
    next_attempt_at = models.DateTimeField(null=True, help_text="After a failed try: when the next one is due.")
    settled_at = models.DateTimeField(null=True, help_text="When it was delivered or died.")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["subscription", "sequence"], name="event_sequence_unique"),
        ]
        indexes = [
            models.Index(fields=["subscription", "sequence"], condition=Q(state="pending"), name="event_pending_idx"),
            models.Index(fields=["subscription", "sequence"], condition=Q(state="dead"), name="event_dead_idx"),
            models.Index(fields=["settled_at"], condition=Q(state="dead"), name="event_dead_since_idx"),
        ]

    def __str__(self) -> str:
        return f"{self.type} {self.sequence}"


class Attempt(models.Model):
    """One try to deliver an event."""

    event = models.ForeignKey(Event, on_delete=models.CASCADE, related_name="attempts")
    time = models.DateTimeField()
    status = models.PositiveSmallIntegerField(null=True, help_text="Of the answer; null: there was none.")
    latency_ms = models.PositiveIntegerField()
    error = models.CharField(max_length=512, blank=True)
    answer = models.TextField(blank=True, help_text="How the answer's body begins.")

    class Meta:
        ordering = ["pk"]

    def __str__(self) -> str:
        return str(self.status or self.error)
