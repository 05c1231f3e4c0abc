"""Any request to the admin is answered with a page or a 4xx error, and never filters by hidden fields."""

import uuid
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import pytest
from django.contrib import admin
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth.models import Group, User
from django.core.exceptions import SuspiciousOperation
from django.db import transaction
from django.db.models import Model
from django.test import Client, RequestFactory
from django.urls import reverse
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from callbacks import outbox
from callbacks.models import Destination, Event, Subscription
from jobs.models import Job
from tests.helpers.factories import make_job, make_node, make_worker, subscribe
from tests.helpers.keys import make_key

pytestmark = pytest.mark.django_db

MODELS: list[type[Model]] = list(admin.site._registry)
CANARY = "canary-19c0"
VALUES = ["\0", "abc", "-1", "9" * 30, "9" * 5000, "\ud800"]
LOOKUPS = ["exact", "icontains", "year"]


@pytest.fixture
def operator(client: Client) -> Client:
    make_worker(make_node("n1"))
    make_job(id="a", command=CANARY, environment={"A": CANARY})
    stream = uuid.uuid4()
    subscribe(stream, "a", f"http://h.example/?t={CANARY}", keys=(CANARY, CANARY), headers={"X": CANARY})
    with transaction.atomic():
        outbox.publish(stream, "orchestrator.job.start", "s", {"secret": CANARY})
    user = User.objects.create_superuser("operator")
    client.force_login(user)
    group = Group.objects.create(name="group")
    LogEntry.objects.log_actions(user.pk, [group], CHANGE, "Changed")
    make_key("team-a")
    client.raise_request_exception = False
    return client


def page(model: type[Model], name: str = "changelist", *args: Any) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_{name}", args=args)


def expect_clean(answer: Any) -> None:
    assert answer.status_code in (200, 302, 400, 403, 404, 405), answer.content[:500]


def filters(model: type[Model]) -> list[str]:
    """Return the filters that a list offers, by the field or parameter of each."""
    offered: Any = admin.site.get_model_admin(model).list_filter
    return [one if isinstance(one, str) else one.parameter_name for one in offered]


def hidden_lookups(model: type[Model]) -> Iterator[str]:
    offered = filters(model)
    for field in model._meta.get_fields():
        for lookup in LOOKUPS:
            if not (field.name in offered and lookup == "exact"):
                yield f"{field.name}__{lookup}"
        if field.name not in offered:
            yield field.name


@pytest.mark.parametrize("model", MODELS)
def test_a_list_rejects_filters_that_it_does_not_offer(operator: Client, rf: RequestFactory, model: type[Model]) -> None:
    # Without the other middleware, for which one filter is as good as another
    for lookup in hidden_lookups(model):
        request = rf.get(page(model), {lookup: "99999999999"})
        request.user = User.objects.get()
        with pytest.raises(SuspiciousOperation):
            admin.site.get_model_admin(model).changelist_view(request)
    assert operator.get(page(model), {"none": "x"}).status_code == 400
    assert operator.get(page(model), {next(hidden_lookups(model)): "x"}).status_code == 400


@pytest.mark.parametrize("model", MODELS)
def test_the_filters_that_a_list_offers_work(operator: Client, model: type[Model]) -> None:
    row: Any = model._default_manager.all()[0]
    for name in filters(model):
        field: Any = model._meta.get_field(name)
        value = field.value_from_object(row)
        if field.is_relation:
            parameters = {f"{name}__id__exact": 1}
        elif field.choices or field.get_internal_type() == "BooleanField":
            parameters = {f"{name}__exact": 1 if value is True else 0 if value is False else value}
        else:
            parameters = {name: value}
        answer = operator.get(page(model), parameters)
        assert answer.status_code == 200, parameters


@pytest.mark.parametrize("model", MODELS)
def test_an_invalid_parameter_does_not_crash_a_list(operator: Client, model: type[Model]) -> None:
    offered = [name for field in filters(model) for name in (field, f"{field}__exact", f"{field}__id__exact", f"{field}__isnull")]
    same_for_all = ["e", "all", "_facets", "_popup", "_changelist_filters"] if model is Job else []
    for name in ["o", "p", "q", "_to_field", *same_for_all, *offered]:
        for value in VALUES:
            expect_clean(operator.get(f"{page(model)}?{urlencode({name: value}, errors='surrogatepass')}"))


@pytest.mark.parametrize("model", MODELS)
def test_an_invalid_id_does_not_crash_a_page(operator: Client, model: type[Model]) -> None:
    options = admin.site.get_model_admin(model)
    buttons = [name for name in getattr(options, "actions_detail", ()) if isinstance(name, str)]
    for value in ("%00", "abc", "-1", "9" * 30, "%FF", str(uuid.uuid4())):
        for end in ("change/", "history/", *(f"{button}/" for button in buttons)):
            address = f"{page(model)}{value}/{end}"
            expect_clean(operator.get(address))
            expect_clean(operator.post(address, {"_form_submitted": "True"}))


@pytest.mark.parametrize("model", MODELS)
def test_an_invalid_selection_does_not_crash_an_action(operator: Client, model: type[Model]) -> None:
    for action in [*admin.site.get_model_admin(model).actions, "none"]:
        for value in VALUES:
            # Not as a dictionary: the client sends an item for each byte of a value
            form = urlencode({"action": action, "_selected_action": value, "index": value}, errors="surrogatepass")
            expect_clean(operator.post(page(model), form, "application/x-www-form-urlencoded"))


@pytest.mark.parametrize("address", ["search/", "autocomplete/", "login/", ""])
def test_an_invalid_parameter_does_not_crash_other_pages(operator: Client, address: str) -> None:
    names = ["s", "page", "extended", "term", "app_label", "model_name", "field_name", "next"]
    known = {"s": "a", "app_label": "callbacks", "model_name": "event", "field_name": "subscription", "term": "a"}
    for name in names:
        for value in VALUES:
            query = urlencode({**known, name: value}, errors="surrogatepass")
            expect_clean(operator.get(f"/admin/{address}?{query}"))


def test_an_unknown_address_is_a_page_of_the_admin(operator: Client) -> None:
    answer = operator.get("/admin/jobs/none/")
    assert answer.status_code == 404
    page = answer.content.decode()
    assert "Page not found" in page
    assert 'href="/admin/jobs/job/"' in page  # its menu

    # I expect those who are not logged in to be asked to, and the API's answer elsewhere
    assert Client().get("/admin/jobs/none/").status_code == 302
    assert operator.get("/none").headers["Content-Type"] == "application/json"


@pytest.mark.parametrize("kind", [1, 9, 10**30])
def test_an_invalid_id_does_not_crash_a_redirect(operator: Client, kind: int) -> None:
    for value in ("%00", "abc", "9" * 30, "-1", "%FF"):
        expect_clean(operator.get(f"/admin/r/{kind}/{value}/"))


def test_an_invalid_id_does_not_crash_a_redirect_to_any_model(operator: Client) -> None:
    for number in range(1, 25):
        expect_clean(operator.get(f"/admin/r/{number}/abc/"))


@pytest.mark.parametrize("model", [Destination, Event, Subscription])
@settings(max_examples=10, suppress_health_check=list(HealthCheck))
@given(
    parameters=st.dictionaries(
        st.sampled_from(["o", "p", "q", "all", "paused__exact", "state__exact", "type", "x"]) | st.text(max_size=8),
        st.text(max_size=12),
    )
)
def test_a_random_query_does_not_crash_a_list(operator: Client, model: type[Model], parameters: dict[str, str]) -> None:
    expect_clean(operator.get(page(model), parameters))
