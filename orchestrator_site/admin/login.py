"""Logins to the admin, of which an account and an address have a limited number, with whatever result; changes of a password."""

from math import ceil
from typing import Any, Final

from django.contrib import admin
from django.contrib.auth.views import PasswordChangeView
from django.core.exceptions import ValidationError
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.urls import reverse
from unfold.forms import AdminOwnPasswordChangeForm, AuthenticationForm

from orchestrator_site.base.access import throttles
from orchestrator_site.base.access.throttles import Allowance
from orchestrator_site.base.intervals import AccessIntervals

_INTERVALS: Final = AccessIntervals()
OF_ADDRESS: Final = Allowance("logins-of-address", 10, _INTERVALS.login_of_address)
OF_ACCOUNT: Final = Allowance("logins-of-account", 30, _INTERVALS.login_of_account)
OLD_PASSWORDS: Final = Allowance("old-passwords", 10, _INTERVALS.login_of_address)


class LoginForm(AuthenticationForm):  # type: ignore[misc]
    """A form that looks at no password while there were too many logins. Whether the account exists makes no difference."""

    def clean(self) -> Any:
        claims = (OF_ADDRESS, throttles.client_of(self.request)), (OF_ACCOUNT, str(self.cleaned_data.get("username", "")).lower())
        if wait := ceil(throttles.spend(*claims)):
            self.request.throttled_for = wait
            raise ValidationError(f"There were too many logins. Try again in {wait} seconds.")
        return super().clean()


def log_in(request: HttpRequest) -> HttpResponseBase:
    """Answer as the admin does, with 429 if there were too many logins."""
    response = admin.site.login(request)
    if wait := getattr(request, "throttled_for", 0):
        response.status_code = 429
        response["Retry-After"] = str(wait)
    return response


class PasswordForm(AdminOwnPasswordChangeForm):  # type: ignore[misc]
    """A form for one's own password, by which the old one cannot be guessed, not even with a session that is someone else's."""

    def clean_old_password(self) -> str:
        if wait := ceil(throttles.spend((OLD_PASSWORDS, self.user.get_username()))):
            raise ValidationError(f"There were too many tries. Try again in {wait} seconds.")
        password: str = super().clean_old_password()
        return password


def change_password(request: HttpRequest) -> HttpResponseBase:
    """Answer as the admin does, with `PasswordForm`."""

    def view(request: HttpRequest) -> HttpResponseBase:
        return PasswordChangeView.as_view(
            form_class=PasswordForm,
            template_name=admin.site.password_change_template or "registration/password_change_form.html",
            success_url=reverse("admin:password_change_done"),
            extra_context=admin.site.each_context(request),
        )(request)

    return admin.site.admin_view(view, cacheable=True)(request)
