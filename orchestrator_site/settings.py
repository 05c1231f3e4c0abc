"""Django settings, derived from `configuration` (docs/configuration.md)."""

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import dj_database_url

from orchestrator_site.base.config import configuration
from orchestrator_site.base.db import postgresql
from orchestrator_site.base.intervals import AccessIntervals, DatabaseIntervals, WebIntervals
from orchestrator_site.browsers import api_description
from orchestrator_site.ops.logs import log_configuration

CONFIGURATION = configuration.load()

SECRET_KEY = CONFIGURATION.secret_key
DEBUG = False
_public = urlsplit(CONFIGURATION.public_url)
ALLOWED_HOSTS = [_public.hostname or "localhost", "localhost", "127.0.0.1", "[::1]"]
CSRF_TRUSTED_ORIGINS = [f"{_public.scheme}://{_public.netloc}"]
if _public.scheme == "https":
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    SECURE_SSL_REDIRECT = True
    SECURE_REDIRECT_EXEMPT = [r"^v1(/|$)"]  # whose clients send their key before they could be redirected
    SECURE_HSTS_SECONDS = round(WebIntervals().hsts)
    SESSION_COOKIE_SECURE = True
    CSRF_COOKIE_SECURE = True
    SESSION_COOKIE_NAME = "__Host-sessionid"  # browsers accept it from this host alone, and only over https
    CSRF_COOKIE_NAME = "__Host-csrftoken"
LOGIN_REDIRECT_URL = "admin:index"  # if a login is to lead to another host
SESSION_ENGINE = "orchestrator_site.browsers.sessions"
SESSION_COOKIE_AGE = round(AccessIntervals().session)
CSRF_COOKIE_SAMESITE = "Strict"
# HSTS is about this host: if it holds for all hosts below it, or is in the lists of browsers, is up to the owner of the domain.
SILENCED_SYSTEM_CHECKS = ["security.W005", "security.W021"]
AUTHENTICATION_BACKENDS = ["orchestrator_site.base.memberships.restriction.RestrictingBackend"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}", "OPTIONS": options}
    for name, options in (
        ("MinimumLengthValidator", {"min_length": 12}),
        ("UserAttributeSimilarityValidator", {}),
        ("CommonPasswordValidator", {}),
    )
]
SECURE_CONTENT_TYPE_NOSNIFF = True
X_FRAME_OPTIONS = "DENY"

ROOT_URLCONF = "orchestrator_site.urls"
WSGI_APPLICATION = "orchestrator_site.wsgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
APPEND_SLASH = False
USE_TZ = True
TIME_ZONE = "UTC"
USE_I18N = False
FORMAT_MODULE_PATH = "orchestrator_site.formats"

INSTALLED_APPS = [
    "unfold",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "orchestrator_site",
    "orchestrator_site.base.access",
    "orchestrator_site.base.memberships",
    "callbacks",
    "jobs",
]

MIDDLEWARE = [
    "orchestrator_site.ops.http_metrics.HttpMetricsMiddleware",
    "orchestrator_site.ops.request_log.RequestLogMiddleware",
    "orchestrator_site.browsers.content_security.ContentSecurityMiddleware",
    "orchestrator_site.base.http.api_errors.JsonErrorsMiddleware",
    "orchestrator_site.ops.health.ProbeMiddleware",  # before the host check: probes accept any host name
    "django.middleware.security.SecurityMiddleware",
    "orchestrator_site.browsers.cross_site.CrossSiteMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "orchestrator_site.browsers.admin_errors.AdminErrorsMiddleware",
]

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [Path(__file__).with_name("templates")],  # before those of unfold, one of which is replaced
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

STATIC_URL = "/static/"
WHITENOISE_USE_FINDERS = True  # serves files from the packages, so there is no need for collectstatic

DATABASES: dict[str, Any]
if CONFIGURATION.embedded:
    DATABASES = {
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": CONFIGURATION.state_dir / "orchestrator.sqlite3",
            "OPTIONS": {
                "transaction_mode": "IMMEDIATE",
                "timeout": DatabaseIntervals().sqlite_lock,
                "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;",
            },
            "TEST": {"NAME": CONFIGURATION.state_dir / "test.sqlite3"},
        }
    }
else:
    _database: dict[str, Any] = {**dj_database_url.parse(CONFIGURATION.database_url, conn_max_age=0, conn_health_checks=True)}
    _database["OPTIONS"] = {**_database.get("OPTIONS", {}), **postgresql.options()}
    DATABASES = {"default": _database}

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [],
    "DEFAULT_PERMISSION_CLASSES": [],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": [],  # orchestrator_site.base.http.json_body reads bodies, also chunked ones
    "EXCEPTION_HANDLER": "orchestrator_site.base.http.api_errors.exception_handler",
    "DEFAULT_SCHEMA_CLASS": "orchestrator_site.base.http.openapi.ApiSchema",
    "UNAUTHENTICATED_USER": None,
}
DATA_UPLOAD_MAX_MEMORY_SIZE = 2 * 1024**2

SPECTACULAR_SETTINGS = {
    "TITLE": "Orchestrator",
    "DESCRIPTION": api_description.DESCRIPTION,
    "TAGS": api_description.TAGS,
    "VERSION": "1",
    "SERVE_INCLUDE_SCHEMA": False,
    "SORT_OPERATIONS": "orchestrator_site.browsers.api_docs.place_of",
    "POSTPROCESSING_HOOKS": ["orchestrator_site.browsers.api_docs.add_probes"],
    "SWAGGER_UI_SETTINGS": {"deepLinking": True, "validatorUrl": None},  # the default sends the document to another service
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
}

UNFOLD = {
    "SITE_TITLE": "Orchestrator",
    "SITE_HEADER": "Orchestrator",
    # Addresses are functions: unfold takes a text for the name of one, and would search for its module for each page.
    "SITE_FAVICONS": [{"rel": "icon", "type": "image/svg+xml", "href": lambda _: "/static/orchestrator_site/icon.svg"}],
    "STYLES": [lambda _: "/static/orchestrator_site/admin.css"],
    "DASHBOARD_CALLBACK": "orchestrator_site.admin.start_page.views.start_page",
    "SIDEBAR": {"navigation": "orchestrator_site.admin.navigation.navigation"},
}

LOGGING = log_configuration(
    embedded=CONFIGURATION.embedded,
    loggers={
        "django": {"handlers": [], "propagate": True, "level": "WARNING"},
        "dramatiq": {"handlers": [], "propagate": True, "level": "WARNING"},
        "dramatiq.broker": {"level": "ERROR"},  # it warns of the second worker, which embedded mode has on purpose
        "django.request": {"level": "ERROR", "filters": ["exceptions"]},  # errors of clients are in their responses
        "django.security": {"level": "CRITICAL"},  # the same, with a traceback
        "django.security.csrf": {"level": "WARNING"},  # without one; if PUBLIC_URL is wrong, this says so
        "gunicorn.http": {"level": "ERROR"},  # it warns about every HEAD request
        "urllib3": {"level": "ERROR"},
        "docker": {"level": "WARNING"},
    },
)
