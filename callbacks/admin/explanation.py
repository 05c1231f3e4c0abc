"""Says in a sentence or two why an event was not delivered, and what to do about it."""

from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from django.db.models import Exists
from django.db.models.functions import Now

from callbacks.models import Attempt, Event, Owner, OwnerKind, Subscription
from callbacks.operators import destinations
from callbacks.rules.event_verdict import PERMANENT_STATUSES
from orchestrator_site.base.admin_elements import once
from orchestrator_site.base.intervals import DeliveryIntervals

# What an error contains, and what to do about it; the first that fits counts.
_ERRORS: Final = (
    (
        "not in EGRESS_ALLOW",
        "The service may not send there. If the URL is right, add the address to EGRESS_ALLOW and restart; "
        "if it is wrong, post the job again with another.",
    ),
    ("ENCRYPTION_KEYS", "Add the key with which the job was stored to ENCRYPTION_KEYS again."),
    ("cannot be resolved", "Check the name of the host in the job's callback, and the name servers of the service."),
    ("certificate", "Check the certificate of the receiver. If your own authority signed it, name that in CA_BUNDLE."),
    ("cannot connect", "Check that the receiver runs, listens on this port, and can be reached from the service."),
    (
        "did not answer in time",
        f"The receiver must answer within {DeliveryIntervals().answer:g} s: "
        "let it store the event first, and work on it afterwards.",
    ),
    ("interrupted: the process", "A process of the service ended while it was sending: nothing to do, it is sent again."),
)
_STATUSES: Final = (
    (range(300, 400), "Redirects are not followed: post jobs with the URL to which it redirects."),
    (range(401, 402), "Check that the receiver accepts the signature or the headers of the job's callback."),
    (range(403, 404), "Check that the receiver accepts the signature or the headers of the job's callback."),
    (range(404, 406), "Check the path of the callback's URL: nothing there accepts events."),
    (range(429, 430), "The receiver gets more than it takes: it is sent less for a while."),
    (range(400, 500), "The receiver does not take the event: its answer and its log should say why."),
    (range(500, 600), "The receiver has a fault: its answer and its log should say which."),
)
_BLOCKED: Final = {  # by the condition of a destination
    "paused": ("an operator has paused its destination", "Resume the destination."),
    "throttled": ("its destination has asked for a pause (429)", "Wait, or reset the destination to send at once."),
    "at its limit": (
        "its destination gets no more per second",
        "Wait. If its host may get more, add its name to EGRESS_ALLOW, or raise DESTINATION_RATE and DESTINATION_BYTES.",
    ),
    "breaker open": (
        "the last attempts at its destination have all failed, so nothing is sent there for a while",
        "When the receiver works again, reset the destination to send at once.",
    ),
    "breaker half open": (
        "the last attempts at its destination have all failed, so one event at a time is tried",
        "When the receiver works again, reset the destination to send at once, or wait for the next attempt.",
    ),
}


_RAISE: Final = {  # by the kind of an owner
    OwnerKind.KEY: "Wait, or raise KEY_RATE and KEY_BYTES.",
    OwnerKind.NAMESPACE: "Wait, or raise NAMESPACE_RATE and NAMESPACE_BYTES.",
}


@dataclass(frozen=True, slots=True)
class Explanation:
    """What happened, and what to do."""

    sentence: str
    advice: str = ""


def explain_event(event: Event, destination: Any) -> Explanation:
    """Return the explanation of an event's present state.

    Args:
        event: With its subscription.
        destination: From `destination_rows.with_database_time`.
    """
    if event.state == Event.State.DELIVERED:
        return Explanation("It was delivered.")
    last = last_attempt(event)
    if event.state == Event.State.DEAD:
        return _dead(event, last)
    return _pending(event, last, destinations.condition(destination))


def explain_destination(destination: Any, last: Attempt | None) -> Explanation:
    """Return the explanation of a destination's condition, with the last attempt at it if that is known."""
    condition = destinations.condition(destination)
    if condition == "slow":
        return Explanation("It answers slowly, so it gets few events at a time.", "Let the receiver answer sooner.")
    if condition not in _BLOCKED:
        return Explanation(f"Events are sent there.{_last(last)}", advice(last))
    reason, what_to_do = _BLOCKED[condition]
    reason = reason.replace("its destination", "it")
    return Explanation(f"{reason[0].upper()}{reason[1:]}.{_last(last)}", f"{advice(last)} {what_to_do}".strip())


def last_attempt(event: Event) -> Attempt | None:
    """Return the last attempt to deliver an event."""
    return event.attempts.order_by("pk").last()


def first_pending(event: Event) -> Event | None:
    """Return the event of the same stream that is sent first."""
    pending = Event.objects.filter(subscription=event.subscription_id, state=Event.State.PENDING)
    return pending.order_by("sequence").only("type", "sequence").first()


def advice(last: Attempt | None) -> str:
    """Return what to do about a failed attempt."""
    if last is None:
        return ""
    if last.status is None:
        return next((text for part, text in _ERRORS if part in last.error), "Check that the receiver can be reached.")
    return next((text for statuses, text in _STATUSES if last.status in statuses), "")


def _dead(event: Event, last: Attempt | None) -> Explanation:
    again = "Then redeliver the event, or all that died at its destination."
    if last is None:
        sentence = (
            "It was given up after a day without an attempt: its destination, or earlier events of its job, kept it waiting."
        )
        return Explanation(sentence, f"Look at its destination. {again}")
    if last.status is None or event.settled_at is None or event.settled_at >= event.expires_at:
        return Explanation(
            f"It was given up, because it could not be delivered for a day.{_last(last)}", f"{advice(last)} {again}"
        )
    if last.status in PERMANENT_STATUSES:
        phrase = HTTPStatus(last.status).phrase
        sentence = f"It was given up, because its receiver answered {last.status} ({phrase}): it never wants this event."
        return Explanation(sentence, f"If that is wrong, correct the receiver or the callback's URL. {again}")
    times = f"{event.tries} times" if event.tries > 1 else "once"
    return Explanation(f"It was given up, because its receiver refused it {times}.{_last(last)}", f"{advice(last)} {again}")


def _pending(event: Event, last: Attempt | None, condition: str) -> Explanation:
    if condition in _BLOCKED:
        reason, what_to_do = _BLOCKED[condition]
        return Explanation(f"It is not sent now: {reason}.{_last(last)}", f"{advice(last)} {what_to_do}".strip())
    first = once(event, first_pending)
    if first is not None and first != event:
        return Explanation("It is not sent now, because an earlier event of its job waits.", "Look at the one that it waits for.")
    if limited := once(event, _owner_at_limit):
        kind = OwnerKind(limited.partition(" ")[0])
        return Explanation(f"It is not sent now: no more is sent per second for the {limited}.", _RAISE[kind])
    if last is not None and last.error:  # it has none if the event was delivered and is redelivered
        return Explanation(
            f"It was not accepted, and is tried again.{_last(last)}", f"{advice(last)} Redeliver it to try at once."
        )
    return Explanation("It is about to be sent.", "If this lasts, check that a process deliver runs.")


def _owner_at_limit(event: Event) -> str:
    """Return the owner whose limit the event's stream waits for; an empty text if it waits for none."""
    waits = Subscription.objects.filter(pk=event.subscription_id, promised_at__gt=Now())
    owners = Owner.objects.filter(Exists(waits), name__in=event.subscription.owners.values())
    return owners.order_by("-limited_until").values_list("name", flat=True).first() or ""


def _last(last: Attempt | None) -> str:
    if last is None:
        return ""
    return f" The last attempt, at {last.time:%Y-%m-%d %H:%M:%S} UTC: {last.error or last.status}."
