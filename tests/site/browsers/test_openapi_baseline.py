"""The OpenAPI document keeps what it said before it was made from serializers.

`openapi_baseline.json` is the document of that day, with the tags (`logs` and `events` were in `jobs`) and the additions of
later ones. Additions are welcome; a path, member, limit, default or answer that is missing breaks the clients that were
generated from it.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

BASELINE = json.loads(Path(__file__).with_name("openapi_baseline.json").read_text())
_WORDS = ("description", "summary", "title")  # may be rewritten, but not left out


def resolved(schema: Any, document: dict[str, Any]) -> Any:
    """Replace each `$ref` by what it refers to, also where it is wrapped to carry a description or `nullable`."""
    if isinstance(schema, list):
        return [resolved(item, document) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return resolved(document["components"]["schemas"][name], document)
    found = {name: resolved(value, document) for name, value in schema.items()}
    if len(found.get("allOf", ())) == 1:
        return found.pop("allOf")[0] | found
    return found


def lost(before: Any, now: Any, path: str) -> Iterator[str]:
    """Yield the path of everything that `before` says and `now` does not."""
    match before:
        case dict() if isinstance(now, dict) and "oneOf" in now and "oneOf" not in before:  # one more form is accepted
            rest = {name: value for name, value in now.items() if name != "oneOf"}
            yield from min((list(lost(before, form | rest, path)) for form in now["oneOf"]), key=len)
        case dict():
            for name, value in before.items():
                if not isinstance(now, dict) or name not in now:
                    yield f"{path}/{name}"
                elif name not in _WORDS or not isinstance(value, str):
                    yield from lost(value, now[name], f"{path}/{name}")
        case list() if path.endswith("/parameters"):
            yield from lost(_by_name(before), _by_name(now), path)
        case list() if path.endswith("/oneOf"):
            for index, alternative in enumerate(before):
                if all(list(lost(alternative, other, path)) for other in now):
                    yield f"{path}/{index}"
        case list() if path.endswith("/required"):
            if set(before) != set(now):
                yield path
        case list():
            yield from (f"{path}/{value}" for value in before if value not in now)
        case _ if before != now:
            yield path


def _by_name(parameters: list[dict[str, Any]]) -> dict[str, Any]:
    return {f"{parameter['in']}:{parameter['name']}": parameter for parameter in parameters}


def _without_security(document: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name != "security"}


def test_nothing_of_the_baseline_is_lost(client: Client) -> None:
    document = client.get("/v1/openapi.json").json()
    now = resolved(_without_security(document), document)
    before = resolved(_without_security(BASELINE), BASELINE)
    assert list(lost(before, now, "")) == []


def test_every_operation_asks_for_a_key_as_before(client: Client) -> None:
    document = client.get("/v1/openapi.json").json()
    for path, item in BASELINE["paths"].items():
        for method, operation in item.items():
            now = document["paths"][path][method]
            assert now.get("security", document.get("security")) == operation.get("security", BASELINE["security"])


@pytest.mark.parametrize(
    ("before", "now", "missing"),
    [
        ({"maximum": 5}, {"maximum": 6}, ["/maximum"]),
        ({"maximum": 5}, {"maximum": 5, "nullable": True}, []),
        ({"properties": {"a": {}}}, {"properties": {"b": {}}}, ["/properties/a"]),
        ({"enum": ["a", "b"]}, {"enum": ["b", "c"]}, ["/enum/a"]),
        ({"required": ["a"]}, {"required": []}, ["/required"]),
        ({"required": ["a"]}, {"required": ["a", "b"]}, ["/required"]),
        ({"description": "a"}, {"description": "b"}, []),
        ({"description": "a"}, {}, ["/description"]),
        ({"oneOf": [{"type": "string"}]}, {"oneOf": [{"type": "array"}]}, ["/oneOf/0"]),
        ({"type": "string"}, {"oneOf": [{"type": "array"}, {"type": "string"}]}, []),
        ({"type": "string"}, {"oneOf": [{"type": "array"}, {"type": "object"}]}, ["/type"]),
        ({"parameters": [{"in": "query", "name": "a"}]}, {"parameters": []}, ["/parameters/query:a"]),
    ],
)
def test_the_comparison_finds_what_is_lost(before: Any, now: Any, missing: list[str]) -> None:
    assert list(lost(before, now, "")) == missing
