"""The envelope, judged by the `cloudevents` package."""

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from urllib.parse import unquote

import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_structured_event
from cloudevents.core.formats.json import JSONFormat
from hypothesis import given
from hypothesis import strategies as st

from callbacks.cloudevents import MAX_BYTES, Envelope, EventTooLarge, timestamp

pytestmark = pytest.mark.stateless

TEXT = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=40)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
DATA = st.dictionaries(st.text(max_size=8), JSON, max_size=4)


@st.composite
def envelopes(draw: st.DrawFn) -> Envelope:
    return Envelope(
        id=str(draw(st.uuids())),
        source=draw(st.sampled_from(["orchestrator/service", "orchestrator/sidecar"])),
        type=draw(st.sampled_from(["orchestrator.job.start", "orchestrator.job.log"])),
        subject=draw(TEXT),
        time=timestamp(draw(st.datetimes(timezones=st.just(UTC)))),
        jobsequence=draw(st.integers(1, 2**31 - 1)),
    )


@given(envelopes(), DATA)
def test_the_cloudevents_library_reads_an_event(envelope: Envelope, data: dict[str, Any]) -> None:
    # When an event is encoded
    body, headers = envelope.body(data), envelope.headers()

    # I expect the reference library to read all of it
    event = from_structured_event(HTTPMessage(headers=headers, body=body), JSONFormat())
    assert event.get_specversion() == "1.0"
    assert (event.get_id(), event.get_source(), event.get_type()) == (envelope.id, envelope.source, envelope.type)
    assert event.get_subject() == envelope.subject
    assert event.get_extension("jobsequence") == envelope.jobsequence
    assert event.get_datacontenttype() == "application/json"
    assert event.get_time() == datetime.fromisoformat(envelope.time)
    assert event.get_data() == data


@given(envelopes(), DATA)
def test_headers_repeat_the_attributes_of_the_body(envelope: Envelope, data: dict[str, Any]) -> None:
    # When an event is encoded
    attributes = json.loads(envelope.body(data))
    headers = envelope.headers()

    # I expect each attribute in the body and, percent-encoded to visible ASCII, in the headers
    assert headers.pop("Content-Type") == "application/cloudevents+json"
    assert attributes.pop("data") == data
    assert {name: unquote(value) for name, value in headers.items()} == {
        f"Ce-{name.capitalize()}": str(value) for name, value in attributes.items()
    }
    assert all(0x21 <= ord(character) <= 0x7E and character != '"' for value in headers.values() for character in value)


def test_time_and_type_are_not_encoded_in_headers() -> None:
    envelope = Envelope(id="1", source="a/b", type="a.b", subject='Grüße "%"', time="2026-01-02T03:04:05.000006Z", jobsequence=1)
    headers = envelope.headers()
    assert headers["Ce-Time"] == envelope.time
    assert headers["Ce-Source"] == "a/b"
    assert headers["Ce-Subject"] == "Gr%C3%BC%C3%9Fe%20%22%25%22"


def test_a_body_is_compact_utf_8_and_has_a_maximum_size() -> None:
    envelope = Envelope(id="1", source="s", type="t", subject="j", time="2026-01-02T03:04:05Z", jobsequence=1)
    assert b'"data":{"a":["\xc3\xa9"]}' in envelope.body({"a": ["é"]})

    # Given data that fills a body to the last byte, I expect one byte more to be too much
    room = MAX_BYTES - len(envelope.body({"a": ""}))
    assert len(envelope.body({"a": "x" * room})) == MAX_BYTES
    with pytest.raises(EventTooLarge):
        envelope.body({"a": "x" * (room + 1)})


def test_values_that_json_cannot_express_are_replaced_or_refused() -> None:
    envelope = Envelope(id="1", source="s", type="t", subject="j", time="2026-01-02T03:04:05Z", jobsequence=1)
    assert json.loads(envelope.body({"a": "x\ud800y\udfff"}))["data"] == {"a": "x\ufffdy\ufffd"}
    for value in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="JSON"):
            envelope.body({"a": value})


@given(st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30))])))
def test_a_timestamp_is_rfc_3339_in_utc(time: datetime) -> None:
    text = timestamp(time.replace(year=2024))
    assert text.endswith("Z")
    assert datetime.fromisoformat(text) == time.replace(year=2024)
