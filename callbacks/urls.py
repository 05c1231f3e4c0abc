"""Where the views are, below `/v1/`."""

from django.urls import path

from callbacks import views

_ONE = "destinations/<int:destination_id>"

urlpatterns = [
    path("destinations", views.DestinationsView.as_view(), name="destinations"),
    path(_ONE, views.DestinationView.as_view(), name="destination"),
    path(f"{_ONE}/pause", views.PauseView.as_view(), name="pause-destination"),
    path(f"{_ONE}/resume", views.ResumeView.as_view(), name="resume-destination"),
    path(f"{_ONE}/reset", views.ResetView.as_view(), name="reset-destination"),
    path(f"{_ONE}/redeliver", views.RedeliverView.as_view(), name="redeliver-to-destination"),
]
