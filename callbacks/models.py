"""Who is told, what they are told, and how each try went (docs/architecture.md)."""

from uuid import UUID

from django.db import models
from django.db.models import Q
from uuid_utils.compat import uuid7

from orchestrator_site.encryption import EncryptedTextField


def new_event_id() -> UUID:
    """Unique for ever, and ordered by time (RFC 9562, version 7)."""
    return uuid7()


class Subscription(models.Model):
    """One stream of events and the URL that they go to, in order.

    `next_attempt_at` says when there is something to do, and is NULL when nothing is pending. `revision` counts what
    was published: a delivery that found nothing left may set that NULL only where the count has not moved meanwhile.
    """

    stream = models.UUIDField(unique=True)
    subject = models.CharField(max_length=128)
    url = EncryptedTextField()
    key = EncryptedTextField(null=True, help_text="Signs the events; null: they are not signed.")
    origin = models.TextField(help_text="Scheme, host and port of the URL.")
    types = models.JSONField(default=list, help_text="The types of events it takes; empty: all.")
    last_sequence = models.PositiveBigIntegerField(default=0)
    revision = models.PositiveBigIntegerField(default=0)
    bulk_refused = models.BooleanField(default=False, help_text="Its last bulk event died: the next ones get one try each.")
    next_attempt_at = models.DateTimeField(null=True)
    lease_token = models.UUIDField(null=True, help_text="The delivery that works on it.")
    lease_until = models.DateTimeField(null=True, help_text="Then that delivery counts as dead.")

    class Meta:
        indexes = [
            models.Index(fields=["next_attempt_at"], condition=Q(next_attempt_at__isnull=False), name="subscription_due_idx"),
        ]

    def __str__(self) -> str:
        return f"{self.subject} to {self.origin}"


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
            models.Index(fields=["created_at"], condition=Q(state="pending"), name="event_oldest_pending_idx"),
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

    def __str__(self) -> str:
        return str(self.status or self.error)
