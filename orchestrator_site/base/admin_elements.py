"""Parts of the admin's pages: buttons, each with a dialog that says what it does and posts it, and colored labels."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from django.http import HttpResponse
from django.urls import reverse
from unfold.admin import ModelAdmin
from unfold.decorators import action, display
from unfold.forms import BaseDialogForm

Method = TypeVar("Method", bound=Callable[..., Any])


def button(title: str, description: str, form: type[BaseDialogForm] | None = None) -> Callable[[Method], Method]:
    """Return a decorator that makes a method a button on a row's page, with a dialog that describes the action and posts it."""
    dialog = {"title": title, "description": description, "form_class": form, "form_submit_text": title}
    decorator: Callable[[Method], Method] = action(description=title, permissions=["operate"], dialog=dialog)
    return decorator


def label(description: str, colors: Mapping[str, str], ordering: str | None = None) -> Callable[[Method], Method]:
    """Return a decorator that shows a method's value as a colored label."""
    decorator: Callable[[Method], Method] = display(description=description, label=dict(colors), ordering=ordering)
    return decorator


def back_to(page: ModelAdmin, identity: object) -> HttpResponse:
    """Close the dialog and reload the page of the row."""
    options = page.model._meta
    address = reverse(f"admin:{options.app_label}_{options.model_name}_change", args=(identity,))
    return HttpResponse(headers={"HX-Redirect": address})
