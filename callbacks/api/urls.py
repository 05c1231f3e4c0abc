"""The URLs of the API of destinations, below `/v1/`."""

from django.urls import path

from callbacks.api import destination_views

_ONE = "destinations/<int:destination_id>"

urlpatterns = [
    path("destinations", destination_views.DestinationsView.as_view(), name="destinations"),
    path(_ONE, destination_views.DestinationView.as_view(), name="destination"),
    path(f"{_ONE}/pause", destination_views.PauseView.as_view(), name="pause-destination"),
    path(f"{_ONE}/resume", destination_views.ResumeView.as_view(), name="resume-destination"),
    path(f"{_ONE}/reset", destination_views.ResetView.as_view(), name="reset-destination"),
    path(f"{_ONE}/redeliver", destination_views.RedeliverView.as_view(), name="redeliver-to-destination"),
]
