"""Which texts are sent in an event as JSON, and that these arrive unchanged."""

import json
import tracemalloc
from dataclasses import dataclass

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from callbacks.cloudevents import Envelope, RawJson
from jobs.transfers.event_content import MAX_CONTENT_BYTES, encode_content
from orchestrator_site.base.values.strict_json import TooLong

pytestmark = pytest.mark.stateless


@dataclass(frozen=True)
class Number:
    """A number as it is written."""

    text: str


def read(text: str) -> object:
    """Parse JSON, keeping every digit. Raise `ValueError`."""
    return json.loads(text, parse_int=Number, parse_float=Number, parse_constant=int)


def delivered(text: str) -> object:
    """Return what a receiver parses, keeping every digit, if the file of a job contains `text`."""
    envelope = Envelope(id="1", source="s", type="t", subject="s", time="2026-01-01T00:00:00Z", jobsequence=1)
    body = read(envelope.body({"content": RawJson(encode_content(text))}).decode())
    assert isinstance(body, dict)
    return body["data"]["content"]


STRINGS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NUMBERS = st.from_regex(r"\A-?(0|[1-9][0-9]{0,40})(\.[0-9]{1,40})?([eE][+-]?[0-9]{1,5})?\Z")
SPACE = st.text(" \t\r\n", max_size=3)


@st.composite
def array(draw: st.DrawFn, items: st.SearchStrategy[str]) -> str:
    return "[" + ",".join(draw(SPACE) + item + draw(SPACE) for item in draw(st.lists(items, max_size=5))) + draw(SPACE) + "]"


@st.composite
def object_(draw: st.DrawFn, items: st.SearchStrategy[str]) -> str:
    names = draw(st.lists(STRINGS, max_size=5, unique=True))
    return "{" + ",".join(f"{draw(SPACE)}{draw(written(name))}{draw(SPACE)}:{draw(items)}" for name in names) + draw(SPACE) + "}"


def written(string: str) -> st.SearchStrategy[str]:
    """A JSON string, with or without escapes."""
    return st.sampled_from([json.dumps(string), json.dumps(string, ensure_ascii=False)])


DOCUMENTS = st.recursive(
    NUMBERS | STRINGS.flatmap(written) | st.sampled_from(["true", "false", "null"]),
    lambda items: array(items) | object_(items),
    max_leaves=20,
)
LIKE_JSON = st.text('[]{}",:0123456789.eE+-\\udNnaIflrts\n \x00\x1f\ufeff', max_size=30)


@given(DOCUMENTS, SPACE)
@example('{"a":0.1000000000000000055511151231257827,"b":[1e400,-0,-0.0,1.0,1E+2]}', "\n")
def test_strict_json_arrives_with_every_digit(document: str, space: str) -> None:
    assert delivered(space + document + space) == read(document)


@given(DOCUMENTS | LIKE_JSON | STRINGS, st.integers(0, 30), LIKE_JSON)
def test_any_text_arrives_as_the_same_json_or_string(document: str, cut: int, inserted: str) -> None:
    # Given a text that may be JSON, or almost
    text = document[:cut] + inserted + document[cut:]

    # I expect the same value, or the same text
    arrived = delivered(text)
    if arrived != text:
        assert arrived == read(text)


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ('{"a": [1, 2.5, null, true, "é"]}\n', '{"a":[1,2.5,null,true,"é"]}'),
        ("42\n", "42"),
        ("1e400", "1e400"),
        ("-0", "-0"),
        ("[1.0, 1E5, 0.10]", "[1.0,1E5,0.10]"),
        ('{"a": {"a": 1}, "b": [{"a": 2}, {"a": 3}]}', '{"a":{"a":1},"b":[{"a":2},{"a":3}]}'),
        (r'"\ud83d\ude00\u0000\/"', r'"😀\u0000/"'),
        ("[]", "[]"),
        (" {} ", "{}"),
    ],
)
def test_strict_json_is_made_compact(text: str, sent: str) -> None:
    assert encode_content(text) == sent


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello\n",
        '{"a": 1, "a": 2}',
        '{"a": 1, "\\u0061": 2}',
        '[{"b": {"a": 1, "c": 2, "a": 1}}]',
        "{'a': 1}",
        "[NaN]",
        "-Infinity",
        "\ufeff{}",
        '"\\ud800"',
        '{"\\udfff": 1}',
        '"\\x"',
        '"\\u12"',
        '"a\nb"',
        "01",
        "1.",
        ".5",
        "+1",
        "-",
        "1e",
        "١",
        "[1,]",
        "[,1]",
        '{"a":1,}',
        '{"a"}',
        '{"a":1]',
        "[1}",
        "[1 2]",
        "[1",
        '{"a":',
        "1 2",
        "[] []",
        "\x0c1",
        "true\x00",
        "truefalse",
    ],
)
def test_other_text_is_sent_as_a_string(text: str) -> None:
    assert json.loads(encode_content(text)) == text


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
@pytest.mark.parametrize("inside", ["", "1"])
def test_json_may_be_nested_100_levels_deep(opening: str, closing: str, inside: str) -> None:
    inside = inside or ("[]" if opening == "[" else "{}")
    levels = 100 if inside == "1" else 99
    good = opening * levels + inside + closing * levels
    assert encode_content(good) == good
    for deeper in (opening + good + closing, opening * 5000):
        assert json.loads(encode_content(deeper)) == deeper


@pytest.mark.parametrize("sign", ["", "-"])
def test_an_integer_may_have_4300_digits(sign: str) -> None:
    good = sign + "9" * 4300
    assert encode_content(good) == good
    assert encode_content(good + "9") == f'"{good}9"'
    assert encode_content(good + "9.0") == good + "9.0"


@pytest.mark.parametrize(
    "text",
    [
        "[" + "0," * 500_000 + "0]",
        "[" + "[]," * 300_000 + "[]]",
        "[" * 1_000_000,
        "{" + ",".join(f'"{number}":0' for number in range(100_000)) + "}",
        '"' + "\\u0041" * 160_000,
        '"' + '\\"' * 500_000 + '"',
        "9" * 1_000_000,
        "-" + "9" * 1_000_000 + ".",
        "1." + "0" * 1_000_000 + "e",
        " " * 1_000_000 + "x",
    ],
    ids=["numbers", "arrays", "depth", "names", "no end", "escapes", "digits", "digits and a dot", "decimals", "spaces"],
)
def test_too_long_a_text_needs_little_time_and_memory(text: str) -> None:
    """The time is linear: otherwise the test would not end."""
    tracemalloc.start()
    try:
        with pytest.raises(TooLong):
            encode_content(text)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * 1024**2


def test_white_space_does_not_count() -> None:
    document = json.dumps({"a": "😀" * 1000}, indent=200)
    assert encode_content(" " * 500_000 + document) == '{"a":"' + "😀" * 1000 + '"}'


def test_the_limit_applies_to_the_encoded_content() -> None:
    # Given JSON of exactly 48 KiB, and of one byte more
    fits = "[" + "1," * (MAX_CONTENT_BYTES // 2 - 2) + "10]"
    assert len(fits) == MAX_CONTENT_BYTES
    assert encode_content(fits) == fits
    with pytest.raises(TooLong):
        encode_content(fits[:-1] + "0]")
