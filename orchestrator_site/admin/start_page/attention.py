"""Finds what needs an operator, the most urgent first, each with a link to where it is fixed if that is in the admin.

Each query reads an index, and at most a few rows of each kind.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from django.conf import settings
from django.db.models import Exists, OuterRef, Q, Subquery
from django.db.models.functions import Now
from django.urls import reverse
from django.utils import timezone

from callbacks.delivery import destination_rows
from callbacks.models import Attempt, Destination, Event
from callbacks.operators import destinations
from jobs import node_conditions
from jobs.admin.explanation import waiting
from jobs.models import Job, Node
from jobs.states import State
from orchestrator_site.admin.start_page.counts import BLOCKED, jobs_with
from orchestrator_site.base.admin_elements import relative_time
from orchestrator_site.base.config.open_api import open_api_warning
from orchestrator_site.base.intervals import AdminIntervals

_SHOWN: Final = 5  # of each kind
_HALF_OPEN: Final = Q(open_until__isnull=False, waiting=True)


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that an operator should look at."""

    urgent: bool
    kind: str
    title: str
    text: str
    address: str = ""  # of the page where it is fixed; empty if it is fixed elsewhere
    since: datetime | None = None

    @property
    def age(self) -> str:
        """How long ago it began, as HTML; empty if that is unknown."""
        return relative_time(self.since, timezone.now()) if self.since else ""


def problems(intervals: AdminIntervals = AdminIntervals()) -> list[Problem]:
    """Return what needs attention now, urgent problems first."""
    found = [*_settings(), *_nodes(intervals), *_destinations(), *_dead_events(), *_waiting_jobs(intervals)]
    return sorted(found, key=lambda problem: not problem.urgent)


def _settings() -> Iterator[Problem]:
    if warning := open_api_warning(settings.CONFIGURATION):
        yield Problem(True, "settings", "open to others", warning)


def _nodes(intervals: AdminIntervals) -> Iterator[Problem]:
    # With `=`, PostgreSQL would read the unfinished jobs of all nodes, and those that wait for one, if it knew of many nodes.
    unfinished = Job.objects.filter(node__gte=OuterRef("pk"), node__lte=OuterRef("pk"), completed_at=None)
    nodes = node_conditions.with_condition(Node.objects.annotate(has_jobs=Exists(unfinished), now=Now()))
    for node in nodes.order_by("name"):
        address = reverse("admin:jobs_node_change", args=(node.pk,))
        match node.condition:
            case node_conditions.STARTS_NOTHING:
                yield Problem(True, "node", node.name, f"fails to start containers: {node.start_refusal}", address)
            case node_conditions.NO_WORKER | node_conditions.SILENT if node.has_jobs:
                text = f"{_absence(node)}; its unfinished jobs wait for it"
                yield Problem(True, "node", node.name, text, address, node.seen_at)
            case node_conditions.NO_WORKER | node_conditions.SILENT if not (node.drained or _is_forgotten(node, intervals)):
                yield Problem(False, "node", node.name, _absence(node), address, node.seen_at)


def _absence(node: Any) -> str:
    return "has no living worker" if node.condition == node_conditions.NO_WORKER else "has an engine that does not respond"


def _is_forgotten(node: Any, intervals: AdminIntervals) -> bool:
    return node.seen_at is None or node.now - node.seen_at > timedelta(seconds=intervals.node_forgotten)


def _destinations() -> Iterator[Problem]:
    blocked = destination_rows.with_database_time(Destination.objects.filter(BLOCKED | _HALF_OPEN))
    for destination in blocked.order_by("-waiting", "pk")[:_SHOWN]:
        condition = destinations.condition(destination)
        text = f"{condition}: events wait for it" if destination.waiting else condition
        urgent = destination.waiting and not destination.paused
        address = reverse("admin:callbacks_destination_change", args=(destination.pk,))
        yield Problem(urgent, "destination", destination.origin, text, address)


def _dead_events() -> Iterator[Problem]:
    # As `jobs_with`: PostgreSQL might look for the last attempt of an event among those of all events.
    attempts = Attempt.objects.filter(event__gte=OuterRef("pk"), event__lte=OuterRef("pk"))
    last_error = attempts.order_by("-event_id", "-pk").values("error")[:1]
    dead = Event.objects.filter(state=Event.State.DEAD, settled_at__isnull=False).order_by("-settled_at")
    shown = dead.annotate(last_error=Subquery(last_error)).values(
        "pk", "type", "settled_at", "last_error", "subscription__subject", "subscription__destination__origin"
    )
    for row in shown[:_SHOWN]:
        title = f"{row['type'].removeprefix('orchestrator.job.')} of {row['subscription__subject']}"
        reason = row["last_error"] or "it expired"
        text = f"was not accepted by {row['subscription__destination__origin']}: {reason}"
        address = reverse("admin:callbacks_event_change", args=(row["pk"],))
        yield Problem(True, "dead event", title, text, address, row["settled_at"])


def _waiting_jobs(intervals: AdminIntervals) -> Iterator[Problem]:
    oldest = jobs_with(State.ACCEPTED).annotate(now=Now())
    for job in oldest.defer("environment", "command", "meta")[:_SHOWN]:
        if job.now - job.created_at >= timedelta(seconds=intervals.long_wait):
            address = reverse("admin:jobs_job_change", args=(job.pk,))
            yield Problem(False, "waiting job", job.id, waiting(job), address, job.created_at)
