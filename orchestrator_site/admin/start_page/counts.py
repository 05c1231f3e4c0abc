"""Counts the jobs and events of each kind. Each count reads an index, and stops at `MAX_COUNTED`.

What is counted has the order of its index. Without it PostgreSQL reads the table from its start if, by its statistics, most rows
match, because it would then soon reach the limit: with statistics of another time it finds none, and reads all of it.
"""

from dataclasses import dataclass
from typing import Any, Final

from django.db.models import Q, QuerySet
from django.db.models.functions import Now
from django.urls import reverse

from callbacks.models import Destination, Event
from jobs import node_conditions
from jobs.models import Job, Node
from jobs.states import State

MAX_COUNTED: Final = 10_000

# Nothing is sent there now. Each part has an index.
BLOCKED: Final = Q(open_until__gt=Now()) | Q(paused=True) | Q(throttled_until__gt=Now())


@dataclass(frozen=True, slots=True)
class Count:
    """A number on the start page, and the list of what it counts."""

    name: str
    text: str
    address: str
    alarming: bool = False


def live_counts() -> list[Count]:
    """Return the counts in the order in which they are shown."""
    return [
        _jobs("Waiting jobs", State.ACCEPTED),
        _jobs("Running jobs", State.RUNNING),
        _nodes(),
        _events("Undelivered events", Event.State.PENDING, "expires_at"),
        _events("Dead events", Event.State.DEAD, "settled_at", alarming=True),
        _destinations(),
    ]


def jobs_with(state: State) -> QuerySet[Job]:
    """Return the jobs with a status, the oldest first, by the index of their status whatever the statistics say.

    With `=` PostgreSQL would ignore the status in the order, and might look for them among all jobs, by their primary key.
    """
    return Job.objects.filter(status__gte=state, status__lte=state).order_by("-status", "uuid")


def _jobs(name: str, state: State) -> Count:
    count = _count(jobs_with(state))
    return Count(name, _text(count), f"{reverse('admin:jobs_job_changelist')}?status__exact={state}")


def _nodes() -> Count:
    conditions = list(node_conditions.with_condition(Node.objects.all()).values_list("condition", flat=True)[:MAX_COUNTED])
    ready = conditions.count(node_conditions.READY)
    broken = len(conditions) - ready - conditions.count(node_conditions.DRAINED)
    return Count("Nodes ready", f"{ready} of {len(conditions)}", reverse("admin:jobs_node_changelist"), alarming=broken > 0)


def _events(name: str, state: Event.State, indexed: str, *, alarming: bool = False) -> Count:
    count = _count(Event.objects.filter(state=state).order_by(indexed))
    address = f"{reverse('admin:callbacks_event_changelist')}?state__exact={state}"
    return Count(name, _text(count), address, alarming=alarming and count > 0)


def _destinations() -> Count:
    count = _count(Destination.objects.filter(BLOCKED))
    return Count("Blocked destinations", _text(count), reverse("admin:callbacks_destination_changelist"), alarming=count > 0)


def _count(rows: QuerySet[Any]) -> int:
    return rows[: MAX_COUNTED + 1].count()


def _text(count: int) -> str:
    return f"over {MAX_COUNTED:,}" if count > MAX_COUNTED else f"{count:,}"
