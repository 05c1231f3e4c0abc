"""Parts of the admin's pages: buttons with a dialog that says what they do and posts it, colored labels, columns of lists."""

from collections.abc import Callable, Mapping
from datetime import datetime
from functools import wraps
from typing import Any, TypeVar

from django.contrib import admin, messages
from django.contrib.admin.utils import display_for_value
from django.http import Http404, HttpRequest, HttpResponse
from django.template.defaultfilters import pluralize
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.timesince import timesince
from unfold.admin import ModelAdmin
from unfold.decorators import action, display
from unfold.forms import BaseDialogForm

Answer = TypeVar("Answer")
Method = TypeVar("Method", bound=Callable[..., Any])


def button(title: str, description: str, form: type[BaseDialogForm] | None = None) -> Callable[[Method], Method]:
    """Return a decorator that makes a method a button on a row's page, with a dialog that describes the action and posts it.

    If the row has been deleted meanwhile, so that the method raises `Http404`, the list is opened and says so: a dialog shows
    nothing of an error.
    """
    dialog = {"title": title, "description": description, "form_class": form, "form_submit_text": title}

    def decorate(method: Method) -> Method:
        @wraps(method)
        def act(page: ModelAdmin, request: HttpRequest, *arguments: Any, **options: Any) -> Any:
            try:
                return method(page, request, *arguments, **options)
            except Http404:
                messages.warning(request, f"Nothing was done: the {page.model._meta.verbose_name} was deleted meanwhile.")
                return _redirect(page, "changelist")

        made: Method = action(description=title, permissions=["operate"], dialog=dialog)(act)
        return made

    return decorate


def label(description: str, colors: Mapping[str, str]) -> Callable[[Method], Method]:
    """Return a decorator that shows a method's value as a colored label."""
    decorator: Callable[[Method], Method] = display(description=description, label=dict(colors))
    return decorator


def moment(name: str, title: str) -> Callable[[ModelAdmin, Any], str]:
    """Return a column that shows the time in a field of the model relative to now, and exactly on hover."""

    @admin.display(description=title)
    def column(page: ModelAdmin, row: Any) -> str:
        time: datetime | None = getattr(row, name)
        return str(page.get_empty_value_display()) if time is None else relative_time(time, timezone.now())

    return column


def named_field(name: str, title: str) -> Callable[[ModelAdmin, Any], str]:
    """Return a column that shows a field of the model under another title."""

    @admin.display(description=title)
    def column(page: ModelAdmin, row: Any) -> str:
        return display_for_value(getattr(row, name), page.get_empty_value_display())

    return column


def link(address: str, text: str) -> SafeString:
    """Return a link as HTML."""
    return format_html('<a class="text-primary-600 dark:text-primary-500" href="{}">{}</a>', address, text)


def once(row: Any, ask: Callable[[Any], Answer]) -> Answer:
    """Return what a function says about a row, which it is asked only once: a page evaluates each of its fields several times."""
    answers = row.__dict__.setdefault("_answers", {})
    if ask not in answers:
        answers[ask] = ask(row)
    answer: Answer = answers[ask]
    return answer


def yes_or_no(value: bool) -> str:
    """Return a truth value as a word."""
    return "yes" if value else "no"


def relative_time(time: datetime, now: datetime) -> SafeString:
    """Return a time as HTML: how long ago it was, or how long it will be, and the exact time on hover."""
    exact = f"{time:%Y-%m-%d %H:%M:%S} UTC"
    text = f"{_distance(time, now)} ago" if time <= now else f"in {_distance(now, time)}"
    return format_html('<time class="whitespace-nowrap" datetime="{}" title="{}">{}</time>', time.isoformat(), exact, text)


def _distance(earlier: datetime, later: datetime) -> str:
    text = timesince(earlier, later, depth=1)
    return "less than a minute" if text.startswith("0") else text


def back_to(page: ModelAdmin, identity: object) -> HttpResponse:
    """Close the dialog and reload the page of the row."""
    return _redirect(page, "change", identity)


def report_redelivery(request: HttpRequest, count: int, otherwise: str) -> None:
    """Tell the user how many events will be sent again. If there are none, `otherwise` says why, as the end of a sentence."""
    if count:
        messages.success(request, f"{count} event{pluralize(count)} will be sent again.")
    else:
        messages.warning(request, f"Nothing is sent again: {otherwise}.")


def _redirect(page: ModelAdmin, view: str, *arguments: object) -> HttpResponse:
    options = page.model._meta
    address = reverse(f"admin:{options.app_label}_{options.model_name}_{view}", args=arguments)
    return HttpResponse(headers={"HX-Redirect": address})
