"""Logins to the admin, of which an account and an address have a limited number, with whatever result."""

from math import ceil
from typing import Any, Final

from django.contrib import admin
from django.core.exceptions import ValidationError
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from unfold.forms import AuthenticationForm

from orchestrator_site.base.access import throttles
from orchestrator_site.base.access.throttles import Allowance
from orchestrator_site.base.intervals import AccessIntervals

_INTERVALS: Final = AccessIntervals()
OF_ADDRESS: Final = Allowance("logins-of-address", 10, _INTERVALS.login_of_address)
OF_ACCOUNT: Final = Allowance("logins-of-account", 30, _INTERVALS.login_of_account)


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
