"""Events arrive exactly as they were stored, whatever a job prints; verified with third-party libraries."""

import hashlib
import hmac
import json
from base64 import b64encode
from collections.abc import Iterator
from datetime import datetime
from typing import Any
from urllib.parse import unquote

import jsonschema
import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_structured_event
from cloudevents.core.formats.json import JSONFormat
from django.db import transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from standardwebhooks import Webhook

from callbacks.delivery.stream_delivery import Deliverer
from callbacks.models import Event, Subscription
from jobs import events
from jobs.engine.protocol import Frames
from jobs.log_lines import LineSplitter, group
from jobs.models import Job
from jobs.spec import CallbackSpec
from jobs.transfers.event_content import encode_content
from tests.helpers.delivery_fixtures import deliver
from tests.helpers.factories import make_job
from tests.helpers.receiver import Received, Receiver

pytestmark = pytest.mark.django_db(transaction=True)

# From CloudEvents 1.0.2: "Context Attributes", "Naming Conventions", and sections 2.2 and 2.4 of the JSON format (extensions are
# members of simple types beside the other attributes).
SCHEMA = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "required": ["specversion", "id", "source", "type"],
    "properties": {
        "specversion": {"const": "1.0"},
        "id": {"type": "string", "minLength": 1},
        "source": {"type": "string", "minLength": 1, "format": "uri-reference"},
        "type": {"type": "string", "minLength": 1},
        "datacontenttype": {"type": "string", "pattern": r"^[\w.+-]+/[\w.+-]+"},
        "dataschema": {"type": "string", "minLength": 1, "format": "uri"},
        "subject": {"type": "string", "minLength": 1},
        "time": {"type": "string", "format": "date-time"},
        "data_base64": {"type": "string", "contentEncoding": "base64"},
        "data": {},
    },
    "not": {"required": ["data", "data_base64"]},
    "propertyNames": {"pattern": "^[a-z0-9]{1,20}$|^data_base64$"},
    "additionalProperties": {"type": ["string", "integer", "boolean"], "minimum": -(2**31), "maximum": 2**31 - 1},
}
CHECKER = jsonschema.Draft202012Validator(SCHEMA, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER)

TEXT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=30)
META = st.dictionaries(
    st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), min_size=1, max_size=20), TEXT, max_size=3
)
# Encoded surrogates, halves of characters, NUL, anything.
LOG = st.lists(
    st.sampled_from([b"\xed\xa0\x80", b"\xf0\x9f", b"\0", b"\r", b"\n", b"\n", b'"', b"\\", "é€😀".encode()])
    | st.binary(max_size=8),
    max_size=12,
).map(b"".join)
NUMBERS = (
    st.sampled_from(["1e400", "-0", "1.0", "0.1000000000000000055511151231257827"])
    | st.integers(-(10**400), 10**400).map(str)
    | st.floats(allow_nan=False, allow_infinity=False).map(repr)
)
CONTENT = st.one_of(
    st.just(""), TEXT, NUMBERS, st.just('{"a": [1e400, -0.0, "\\ud83d"]}'), TEXT.map(json.dumps), st.lists(TEXT).map(json.dumps)
)
KEYS = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), min_size=1, max_size=30).filter(
    lambda key: not key.startswith("whsec_")
) | st.binary(min_size=24, max_size=64).map(lambda secret: "whsec_" + b64encode(secret).decode())


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


def publish_events(job: Job, log: bytes, content: str) -> list[str]:
    """Publish a job's events as a worker does, and return the lines of its log."""
    splitter = LineSplitter()
    splitter.feed(Frames("stderr", ["2026-01-01T00:00:00Z"], [log]))
    splitter.finish()
    lines = splitter.take().lines
    output = job.outputs.model(job=job, position=0, name="o", type="event", path="o", status="success")
    with transaction.atomic():
        events.started(job)
        events.logged(job, group(lines))
        events.exited(job)
        events.output_finished(job, output, 0.5, content=encode_content(content))
        events.completed(job)
    return [line.text for line in lines]


@given(META, LOG, CONTENT, KEYS)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_stored_events_arrive_unchanged_and_signed(
    receiver: Receiver, meta: dict[str, str], log: bytes, content: str, key: str
) -> None:
    # Given a job with any metadata, log and output
    receiver.requests.clear()
    job = make_job(meta=meta, callback=CallbackSpec(url=receiver.url, keys=(key,) if key else ()))

    # When its events are published and sent
    lines = publish_events(job, log, content)
    subscription = Subscription.objects.get(stream=job.uuid)
    deliver(Deliverer(), subscription.pk)

    # I expect exactly the stored bytes
    stored = [bytes(event.body) for event in Event.objects.filter(subscription=subscription).order_by("sequence")]
    assert [received.body for received in receiver.requests] == stored

    # And each to be verified and parsed by other libraries
    for received in receiver.requests:
        check_signatures(received, key)
        check_event(received, job)

    # And the log and the output to be in them
    data_of_events = [received.json["data"] for received in receiver.requests]
    assert [line for data in data_of_events for line in data.get("lines", [])] == lines
    assert all("\ud800" not in line and "\0" not in line for line in lines)
    assert same(data_of_events[-2]["content"], json.loads(encode_content(content)))
    assert encode_content(content).encode() in receiver.requests[-2].body
    assert all(data["meta"] == meta for data in data_of_events)


def check_signatures(received: Received, key: str) -> None:
    expected = hmac.new(key.encode(), received.body, hashlib.sha256).hexdigest()
    assert received.headers["x-signature-256"] == f"sha256={expected}"
    Webhook(key if key.startswith("whsec_") else key.encode()).verify(received.body, received.headers, json_parse=False)


def check_event(received: Received, job: Job) -> None:
    attributes: dict[str, Any] = received.json
    CHECKER.validate(attributes)
    event = from_structured_event(HTTPMessage(headers=received.headers, body=received.body), JSONFormat())
    assert (event.get_id(), event.get_subject()) == (received.headers["webhook-id"], job.id)
    assert event.get_time() == datetime.fromisoformat(attributes["time"])
    data = attributes.pop("data")
    assert same(event.get_data(), data)
    headers = {name.removeprefix("ce-"): unquote(value) for name, value in received.headers.items() if name.startswith("ce-")}
    assert headers == {name: str(value) for name, value in attributes.items()}
    assert received.headers["content-length"] == str(len(received.body))


def same(one: Any, other: Any) -> bool:
    """Return whether two JSON values are written the same way: 1 and 1.0, or 0.0 and -0.0, are not."""
    return json.dumps(one) == json.dumps(other)


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("id", ""),
        ("source", ""),
        ("type", 1),
        ("time", "yesterday"),
        ("specversion", "0.3"),
        ("Upper", "x"),
        ("big", 2**31),
        ("data_base64", "e30="),
    ],
)
def test_the_schema_rejects_other_values(member: str, value: object) -> None:
    good = {
        "specversion": "1.0",
        "id": "1",
        "source": "a/b",
        "type": "t",
        "time": "2026-01-02T03:04:05Z",
        "jobsequence": 1,
        "data": {},
    }
    CHECKER.validate(good)
    with pytest.raises(jsonschema.ValidationError):
        CHECKER.validate(good | {member: value})
