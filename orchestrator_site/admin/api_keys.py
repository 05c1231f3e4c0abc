"""The admin's pages of API keys: they are made, shown once, and revoked; nothing else of them changes."""

from typing import Any, Final

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.db.models.functions import Now
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.utils import timezone
from unfold.admin import ModelAdmin
from unfold.forms import BaseDialogForm

from orchestrator_site.base import operator_log
from orchestrator_site.base.access import made_keys
from orchestrator_site.base.access.models import DEFAULT, ApiKey
from orchestrator_site.base.admin_elements import back_to, button, label, moment, named_field, yes_or_no
from orchestrator_site.base.read_only_admin import ReadOnly

_ALL: Final = "all namespaces"


class _NewKeyForm(forms.ModelForm):  # type: ignore[type-arg]
    def clean_expires_at(self) -> Any:
        expires_at = self.cleaned_data["expires_at"]
        if expires_at is not None and expires_at <= timezone.now():
            raise ValidationError("This time is over.")
        return expires_at


@admin.register(ApiKey)
class ApiKeyAdmin(ReadOnly, ModelAdmin):  # type: ignore[misc]
    form = _NewKeyForm
    list_display = ("name", "start", "whose", "may", "state", "used", "expires")
    list_select_related = ("namespace",)
    ordering = ("-id",)
    search_fields = ("name", "prefix")
    search_help_text = "A part of the name, or of how the key begins"
    actions_detail = ("revoke",)
    used = moment("last_used_at", "Last use")
    created = moment("created_at", "Created")
    expires = moment("expires_at", "Expires")
    revoked = moment("revoked_at", "Revoked")
    start = named_field("prefix", "Begins with")
    fieldsets = ((None, {"fields": ("name", "start", "whose", "may", "state", "created", "used", "expires", "revoked")}),)
    add_fieldsets = (
        (
            None,
            {
                "fields": ("name", "namespace", "read_only", "expires_at"),
                "description": "The key is shown once, on the next page.",
            },
        ),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[ApiKey]:
        rows: QuerySet[ApiKey] = super().get_queryset(request)
        return rows.defer("digest").annotate(now=Now())

    @admin.display(description="Namespace")
    def whose(self, row: ApiKey) -> str:
        return row.namespace_id or _ALL

    @admin.display(description="Read-only")
    def may(self, row: ApiKey) -> str:
        return yes_or_no(row.read_only)

    @label("State", {"usable": "success", "expired": "warning", "revoked": "danger"})
    def state(self, row: Any) -> str:
        if row.revoked_at is not None:
            return "revoked"
        return "expired" if row.expires_at is not None and row.expires_at <= row.now else "usable"

    # -- a new key --------------------------------------------------------------------------------------

    def has_add_permission(self, request: HttpRequest) -> bool:
        return bool(ModelAdmin.has_add_permission(self, request))

    def get_fieldsets(self, request: HttpRequest, obj: ApiKey | None = None) -> Any:
        return self.add_fieldsets if obj is None else super().get_fieldsets(request, obj)

    def get_readonly_fields(self, request: HttpRequest, obj: ApiKey | None = None) -> Any:
        return () if obj is None else super().get_readonly_fields(request, obj)

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **options: Any) -> Any:
        """Offer the namespaces; that the key is for all of them has to be chosen."""
        return super().formfield_for_foreignkey(db_field, request, empty_label=_ALL.capitalize(), initial=DEFAULT, **options)

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], *args: Any, **options: Any) -> HttpResponse:
        context |= {"show_save_and_add_another": False, "show_save_and_continue": False}  # both would skip the page with the key
        response: HttpResponse = super().render_change_form(request, context, *args, **options)
        return response

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:  # noqa: ARG002 - Django's signature
        obj.secret = made_keys.new_secret(obj)
        obj.save()
        operator_log.record(request, [obj], f"Made for {obj.namespace_id or _ALL}{', read-only' if obj.read_only else ''}")

    def log_addition(self, *_: Any) -> None:
        """Do nothing: `save_model` has recorded it, also in the service's log."""

    def response_add(self, request: HttpRequest, obj: Any, post_url_continue: str | None = None) -> HttpResponse:  # noqa: ARG002
        """Show the key. It is in this answer alone: a message or a session would store it."""
        context = {**self.admin_site.each_context(request), "title": "The new API key", "row": obj, "opts": self.opts}
        return render(request, "orchestrator_site/new_key.html", context)

    # -- what an administrator can do ---------------------------------------------------------------------

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> list[Any]:
        actions: list[Any] = super().get_actions_detail(request, object_id)
        return actions if ApiKey.objects.filter(pk=object_id, revoked_at=None).exists() else []

    @button("Revoke", "Requests with this key are refused from now on. This cannot be undone.")
    def revoke(self, request: HttpRequest, _form: BaseDialogForm, object_id: str) -> HttpResponse:
        row = get_object_or_404(ApiKey, pk=object_id)
        operator_log.record(request, [row], "Revoked")
        if made_keys.revoke(row.pk):
            messages.success(request, "The key was revoked.")
        else:
            messages.warning(request, "The key had been revoked before.")
        return back_to(self, object_id)
