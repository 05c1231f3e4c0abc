"""The URLs of the API of jobs, below `/v1/`."""

from django.urls import path, register_converter
from django.urls.converters import StringConverter

from jobs.api import event_views, job_views, limits


class JobIdConverter(StringConverter):
    """The form of a job's id in a URL; any other URL is not found."""

    regex = f"[A-Za-z0-9][A-Za-z0-9._-]{{0,{limits.ID_LENGTH - 1}}}"


register_converter(JobIdConverter, "job_id")

_JOB = "jobs/<job_id:job_id>"

urlpatterns = [
    path("jobs", job_views.JobsView.as_view(), name="jobs"),
    path(_JOB, job_views.JobView.as_view(), name="job"),
    path(f"{_JOB}/logs", job_views.LogsView.as_view(), name="job-logs"),
    path(f"{_JOB}/events", event_views.EventsView.as_view(), name="job-events"),
    path(f"{_JOB}/events/redeliver", event_views.RedeliverDeadEventsView.as_view(), name="redeliver-dead-events"),
    path(f"{_JOB}/events/<uuid:event_id>/redeliver", event_views.RedeliverEventView.as_view(), name="redeliver-event"),
]
