"""The page of one job: what happened to it and why, its log and its events, and what an operator can do about it."""

from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from django import forms
from django.conf import settings
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db.models import Prefetch, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, render
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.views.decorators.http import require_POST
from unfold.admin import ModelAdmin
from unfold.forms import BaseDialogForm

from callbacks.models import Event
from callbacks.operators import redelivery
from jobs import rerun, services
from jobs.admin import job_events, job_facts, log_view, time_line
from jobs.admin.explanation import explain
from jobs.errors import IdTaken, TooManyUndecided
from jobs.models import Input, Job, Output, new_uuid
from jobs.services import JobNotFound
from orchestrator_site.base import operator_log
from orchestrator_site.base.admin_elements import back_to, button, report_redelivery
from orchestrator_site.base.db.encryption import if_readable
from orchestrator_site.base.intervals import WebIntervals
from orchestrator_site.base.memberships.restriction import namespace_of_request
from orchestrator_site.base.values.durations import format_duration

_HIDDEN: Final = ("environment", "command", "log_tail_stdout", "log_tail_stderr")
_POLLS: Final = {"log_poll": WebIntervals().log_poll, "state_poll": WebIntervals().state_poll}
_LOG_LINES: Final = 5000  # on the page at once, which does not grow with the log


class _RunAgainForm(BaseDialogForm):  # type: ignore[misc]
    """Holds the id of the new job, so that a form that is sent twice makes one job."""

    new_id = forms.UUIDField(widget=forms.HiddenInput, initial=new_uuid)


_CANCEL: Final = (
    "Its status becomes cancelled at once. Its process gets SIGTERM, and SIGKILL after SHUTDOWN_GRACE. "
    "Outputs that have not been sent are skipped. If the job has ended, only the rest of its outputs is cancelled."
)
_RUN_AGAIN: Final = (
    "This makes a new job with a new id and the same image, command, limits, inputs, outputs and callback. "
    "Environment, headers, URLs, callback keys and the content of files are taken over without being shown. "
    "Files are downloaded and sent again; URLs that have expired will fail. This job does not change."
)


class JobPage(ModelAdmin):  # type: ignore[misc]
    """The part of the admin of jobs that is about a single one."""

    change_form_template = "jobs/job_page.html"
    actions_detail = ("run_again", "cancel")
    fieldsets = ((None, {"fields": ()}),)

    class Media:
        css = {"all": ("jobs/job_page.css", "jobs/job_log.css")}
        js = ("jobs/job_log.js", "jobs/job_refresh.js")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Job]:
        return _seen_by(request, super().get_queryset(request)).defer(*_HIDDEN)

    def get_urls(self) -> list[URLPattern]:
        pages = (
            ("<uuid:uuid>/state/", self.state_view, "state"),
            ("<uuid:uuid>/log/", self.log_view, "log"),
            ("<uuid:uuid>/log.txt", self.log_file_view, "log_file"),
            ("<uuid:uuid>/events/", self.events_view, "events"),
            ("<uuid:uuid>/events/redeliver/", require_POST(self.redeliver_dead_view), "redeliver_dead"),
            ("<uuid:uuid>/events/<uuid:event>/redeliver/", require_POST(self.redeliver_view), "redeliver"),
        )
        own = [path(route, self.admin_site.admin_view(view), name=f"jobs_job_{name}") for route, view, name in pages]
        return [*own, *super().get_urls()]

    # -- what is shown -------------------------------------------------------------------------------------

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], *args: Any, **options: Any) -> HttpResponse:
        job = options.get("obj")
        if job is not None:
            context |= _state(job.pk) | {"log_lines": _LOG_LINES, "events": job_events.page_for(request, job.pk)}
        response: HttpResponse = super().render_change_form(request, context, *args, **options)
        return response

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> list[Any]:
        """Offer to cancel only what is not complete."""
        actions: list[Any] = super().get_actions_detail(request, object_id)
        if Job.objects.filter(pk=object_id, completed_at=None).exists():
            return actions
        return [one for one in actions if one.path != "cancel"]

    def state_view(self, request: HttpRequest, uuid: UUID) -> HttpResponse:
        """Answer with the parts of the page that change while the job runs and its events are delivered."""
        self._check_may_view(request, uuid)
        return render(request, "jobs/job_refresh.html", _state(uuid) | {"events": job_events.page_for(request, uuid)})

    def log_view(self, request: HttpRequest, uuid: UUID) -> HttpResponseBase:
        self._check_may_view(request, uuid)
        return log_view.answer_piece(request, uuid)

    def log_file_view(self, request: HttpRequest, uuid: UUID) -> HttpResponseBase:
        self._check_may_view(request, uuid)
        return log_view.answer_file(uuid)

    def events_view(self, request: HttpRequest, uuid: UUID) -> HttpResponse:
        """Answer with some of the job's events."""
        self._check_may_view(request, uuid)
        return render(request, "jobs/job_events.html", {"events": job_events.page_for(request, uuid)})

    def _check_may_view(self, request: HttpRequest, uuid: UUID) -> None:
        if not self.has_view_permission(request):
            raise PermissionDenied
        _find(request, uuid)

    # -- what an operator can do ---------------------------------------------------------------------------

    @button("Run again", _RUN_AGAIN, _RunAgainForm)
    def run_again(self, request: HttpRequest, form: _RunAgainForm, object_id: str) -> HttpResponse:
        job = _find(request, object_id)
        new_id = str(form.cleaned_data["new_id"])
        made = Job.objects.filter(namespace=job.namespace, id=new_id).values_list("pk", flat=True)
        if made.exists():
            return back_to(self, made.get())  # the form was sent twice
        operator_log.record(request, [job], f"Run again as {new_id}")
        try:
            again = rerun.run_again(job.pk, new_id, timedelta(seconds=settings.CONFIGURATION.job_retention))
        except IdTaken:
            return back_to(self, made.get())  # the form was sent twice at once
        except (JobNotFound, TooManyUndecided, rerun.DescriptionUnreadable) as error:
            messages.error(request, f"It was not run again: {error}.")
            return back_to(self, job.pk)
        operator_log.record(request, [again], f"Created by running {job.id} again")
        messages.success(request, f"This is the new job. Apart from its id it is the same as {job.id}.")
        return back_to(self, again.pk)

    @button("Cancel the job", _CANCEL)
    def cancel(self, request: HttpRequest, _form: BaseDialogForm, object_id: str) -> HttpResponse:
        job = _find(request, object_id)
        if job.completed_at is None:
            operator_log.record(request, [job], "Cancelled")
        if services.cancel_remaining(job.pk):
            messages.success(request, "The job was cancelled.")
        else:
            messages.warning(request, "There was nothing left to cancel.")
        return back_to(self, job.pk)

    def redeliver_view(self, request: HttpRequest, uuid: UUID, event: UUID) -> HttpResponse:
        job_events.check_may_redeliver(request)
        job = _find(request, uuid)
        sequence = Event.objects.filter(pk=event, subscription__stream=uuid).values_list("sequence", flat=True).first()
        if sequence is None:
            raise Http404("the job has no such event")
        operator_log.record(request, [job], f"Redelivered event {sequence}")
        report_redelivery(request, int(redelivery.redeliver(uuid, event)), "the event was deleted meanwhile")
        return _back_to_events(uuid)

    def redeliver_dead_view(self, request: HttpRequest, uuid: UUID) -> HttpResponse:
        job_events.check_may_redeliver(request)
        operator_log.record(request, [_find(request, uuid)], "Redelivered the dead events")
        report_redelivery(request, redelivery.redeliver_dead(uuid), "the job has no dead events")
        return _back_to_events(uuid)


def _state(uuid: UUID) -> dict[str, Any]:
    """Return what the templates show of the job's state."""
    files = (
        Prefetch("inputs", Input.objects.defer("content", "url", "headers").annotate(shown_url=if_readable("url"))),
        Prefetch("outputs", Output.objects.defer("url", "headers").annotate(shown_url=if_readable("url"))),
    )
    rows = Job.objects.defer(*_HIDDEN).select_related("node", "owner").prefetch_related(*files)
    job = rows.filter(pk=uuid).first()
    if job is None:
        raise Http404("there is no such job")
    now = timezone.now()
    return _POLLS | {
        "job": job,
        "explanation": explain(job),
        "bars": time_line.bars(job, now),
        "whole": format_duration(max(0.0, ((job.completed_at or now) - job.created_at).total_seconds())),
        "usage": job_facts.usage(job, now),
        "groups": job_facts.groups(job),
        "files": [("Inputs", job_facts.files(job.inputs.all())), ("Outputs", job_facts.files(job.outputs.all()))],
    }


def _seen_by(request: HttpRequest, rows: QuerySet[Job]) -> QuerySet[Job]:
    """Return those of the jobs that the user may see."""
    namespace = namespace_of_request(request)
    # Without `=`, with which PostgreSQL might read all jobs in the order of the list (`job_table`).
    return rows if namespace is None else rows.filter(namespace__gte=namespace, namespace__lte=namespace)


def _find(request: HttpRequest, uuid: object) -> Job:
    """Return a job that the user may see. Raise `Http404`."""
    rows = _seen_by(request, Job.objects.only("uuid", "namespace", "id", "completed_at"))
    job: Job = get_object_or_404(rows, pk=uuid)
    return job


def _back_to_events(uuid: UUID) -> HttpResponse:
    return HttpResponseRedirect(f"{reverse('admin:jobs_job_change', args=(uuid,))}#events")
