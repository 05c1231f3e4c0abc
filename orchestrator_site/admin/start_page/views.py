"""The start page of the admin, and its parts that an open page asks for again and again (htmx, without a reload)."""

from collections.abc import Callable
from typing import Any, Final

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone

from orchestrator_site.admin.start_page.attention import problems
from orchestrator_site.admin.start_page.charts import HEIGHT, STEP, charts
from orchestrator_site.admin.start_page.counts import live_counts
from orchestrator_site.admin.start_page.nodes import loads
from orchestrator_site.admin.start_page.shared import Shared
from orchestrator_site.base.intervals import AdminIntervals

_NEEDED: Final = ("jobs.view_job", "jobs.view_node", "callbacks.view_event", "callbacks.view_destination")
_INTERVALS: Final = AdminIntervals()


def _look() -> dict[str, Any]:
    # The time tells whether the page is up to date: if the service does not answer, what it shows stays.
    return {"looked_at": timezone.now(), "problems": problems(), "counts": live_counts(), "nodes": loads()}


# Half of the period of a page: what it shows is at most one and a half periods old.
live = Shared(_look, _INTERVALS.counts / 2)
drawn = Shared(charts, _INTERVALS.charts / 2)


def start_page(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Add to the context of the admin's index what its template shows (unfold's `DASHBOARD_CALLBACK`)."""
    if request.user.has_perms(_NEEDED):
        context |= _shown() | live() | {"charts": drawn(), "may_see": True}
    return context


def live_part(request: HttpRequest) -> HttpResponse:
    """Answer with what changes from moment to moment."""
    return _part(request, "live.html", live)


def charts_part(request: HttpRequest) -> HttpResponse:
    """Answer with the charts."""
    return _part(request, "charts.html", lambda: {"charts": drawn()})


def _part(request: HttpRequest, template: str, look: Callable[[], dict[str, Any]]) -> HttpResponse:
    if not admin.site.has_permission(request):  # the session has ended: open the login page, not in the place of the part
        return HttpResponse(headers={"HX-Redirect": reverse("admin:index")})
    if not request.user.has_perms(_NEEDED):
        return HttpResponse(status=403)
    answer = render(request, f"orchestrator_site/start_page/{template}", _shown() | look())
    answer["Cache-Control"] = "no-store"
    return answer


def _shown() -> dict[str, Any]:
    return {"height": HEIGHT, "step": STEP, "refresh": _INTERVALS}
