"""All URLs of the service except the health probes (see `orchestrator_site.ops.health`)."""

from django.contrib import admin
from django.urls import include, path, re_path
from django.views.generic import RedirectView

from orchestrator_site.admin.login import change_password, log_in
from orchestrator_site.admin.start_page.views import charts_part, live_part
from orchestrator_site.base.http.api_views import UnknownView
from orchestrator_site.browsers.api_docs import DocsView, OpenApiView

urlpatterns = [
    path("", RedirectView.as_view(pattern_name="docs"), name="home"),
    path("v1/openapi.json", OpenApiView.as_view(), name="openapi"),
    path("v1/docs", DocsView.as_view(), name="docs"),
    path("v1/", include("jobs.api.urls")),
    path("v1/", include("callbacks.api.urls")),
    re_path(r"^v1(?:/[\s\S]*)?\Z", UnknownView.as_view(), name="unknown"),
    path("admin/live/", live_part, name="admin-live"),
    path("admin/charts/", charts_part, name="admin-charts"),
    path("admin/login/", log_in),
    path("admin/password_change/", change_password),
    path("admin/", admin.site.urls),
]

handler404 = "orchestrator_site.browsers.admin_errors.page_not_found"
