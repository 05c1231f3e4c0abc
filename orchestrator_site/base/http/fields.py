"""Strict fields for serializers: each accepts one JSON type, without coercion, and has its own JSON Schema.

They stop at the first error: a body of 1 MiB can hold half a million values, whose errors would take hundreds of megabytes.
"""

import re
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar, Final

from django.db.models.manager import BaseManager
from drf_spectacular.extensions import OpenApiSerializerFieldExtension
from drf_spectacular.utils import PolymorphicProxySerializer
from rest_framework import serializers
from rest_framework.fields import empty

AnyField = serializers.Field[Any, Any, Any, Any]
Rule = Callable[[Any], Any] | None

REQUIRED: Final = "is required"
_INTEGER = re.compile(r"\d{1,18}", re.ASCII)
_DECIMAL = re.compile(r"\d{1,4}(\.\d{1,3})?", re.ASCII)
_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def error_at(step: str | int, detail: Any) -> serializers.ValidationError:
    """Return the error of a member or an item, of which `detail` is the error itself."""
    nested: Any = {step: detail}
    return serializers.ValidationError(nested)


def read_at(step: str | int, field: AnyField, value: Any) -> Any:
    """Return what the field makes of the value of a member or an item."""
    try:
        return field.run_validation(value)
    except serializers.ValidationError as error:
        raise error_at(step, error.detail) from error


class StrictField(AnyField):
    """A field of one JSON type. `low` and `high` limit its value or its length, which `bounds` are in JSON Schema.

    `parse` returns the value of what the field accepts, or raises a `ValidationError`; `show` returns the JSON value of an
    answer. A serializer treats the values in `absent` like null: as if the member were not there. `schema` are the keywords of
    JSON Schema beside `type`: those that are None are left out, and fields stand for their schemas.
    """

    json_type: ClassVar[str | None] = "string"
    bounds: ClassVar[tuple[str, str]] = ("minLength", "maxLength")
    default_error_messages = {"string": "must be a string", "object": "must be an object"}

    def __init__(
        self,
        low: float | None = None,
        high: float | None = None,
        *,
        parse: Rule = None,
        show: Rule = None,
        absent: Collection[object] = (),
        schema: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.low, self.high, self.parse, self.show, self.absent = low, high, parse, show, absent
        keywords = {"type": self.json_type, self.bounds[0]: low, self.bounds[1]: high, **(schema or {})}
        self.schema = {name: value for name, value in keywords.items() if value is not None}

    def run_validation(self, data: Any = empty) -> Any:
        """Do without DRF's treatment of absent values and validators, which serializers and `parse` replace."""
        value = self.to_internal_value(data)
        return value if self.parse is None else self.parse(value)

    def to_representation(self, value: Any) -> Any:
        return value if self.show is None else self.show(value)

    def from_text(self, text: str) -> Any:
        """Return the JSON value of a query parameter."""
        return text

    def in_range(self, size: float) -> bool:
        return (self.low is None or size >= self.low) and (self.high is None or size <= self.high)


class FieldSchema(OpenApiSerializerFieldExtension):  # type: ignore[no-untyped-call]
    """The schema of a strict field, for drf-spectacular."""

    target_class = StrictField
    match_subclasses = True

    def map_serializer_field(self, auto_schema: Any, direction: Any) -> dict[str, Any]:
        def describe(value: Any) -> Any:
            if isinstance(value, list):
                return [describe(item) for item in value]
            return auto_schema._map_serializer_field(value, direction) if isinstance(value, serializers.Field) else value

        schema = {name: describe(value) for name, value in self.target.schema.items()}
        if self.target.allow_null and "oneOf" in schema:
            schema["oneOf"][0]["nullable"] = True
        if self.target.allow_null and "enum" in schema:
            schema["enum"].append(None)
        return schema


class Text(StrictField):
    """A string of `low` to `high` characters; `message` is the error of one that does not match `pattern`."""

    default_error_messages = {"length": "must have {low} to {high} characters"}

    def __init__(self, *, pattern: str | None = None, message: str = "", schema: Any = None, **options: Any) -> None:
        keywords = {"pattern": None if pattern is None else f"^{pattern}$", **(schema or {})}
        super().__init__(schema=keywords, **options)
        self._message = message
        self._matches = None if pattern is None else re.compile(pattern).fullmatch

    def to_internal_value(self, data: Any) -> Any:
        if not isinstance(data, str):
            self.fail("string")
        if not self.in_range(len(data)):
            self.fail("length", low=self.low or 0, high=self.high)
        if self._matches is not None and not self._matches(data):
            raise serializers.ValidationError(self._message)
        return data


class Choice(StrictField):
    """One of some strings."""

    default_error_messages = {"choice": "must be one of {choices}"}

    def __init__(self, choices: Collection[str], **options: Any) -> None:
        self.by_text = {str(choice): choice for choice in choices}
        super().__init__(schema={"enum": list(self.by_text)}, **options)

    def to_internal_value(self, data: Any) -> Any:
        if not isinstance(data, str):
            self.fail("string")
        if data not in self.by_text:
            self.fail("choice", choices=", ".join(self.by_text))
        return self.by_text[data]


class Boolean(StrictField):
    """True or false. Only for answers."""

    json_type = "boolean"


class Number(StrictField):
    """A number from `low` to `high`."""

    json_type = "number"
    bounds = ("minimum", "maximum")
    default_error_messages = {"number": "must be a number between {low} and {high}"}

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, bool) or not isinstance(data, int | float) or not self.in_range(data):
            self.fail(self.json_type, low=self.low, high=self.high)
        return data

    def from_text(self, text: str) -> Any:
        return float(text) if _DECIMAL.fullmatch(text) else text


class Integer(Number):
    """An integer from `low` to `high`. As in JSON Schema, 1.0 is one."""

    json_type = "integer"
    default_error_messages = {"integer": "must be an integer between {low} and {high}"}

    def in_range(self, size: float) -> bool:
        return size == int(size) and super().in_range(size)

    def to_internal_value(self, data: Any) -> Any:
        return int(super().to_internal_value(data))

    def from_text(self, text: str) -> Any:
        return int(text) if _INTEGER.fullmatch(text) else text


class Time(StrictField):
    """A point in time: RFC 3339 with an offset in requests, UTC with milliseconds in answers."""

    default_error_messages = {
        "time": "must be an RFC 3339 time with an offset, such as 2026-01-31T12:00:00Z (in a URL, write + as %2B)"
    }

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"help_text": "A time in UTC, with milliseconds.", **options, "schema": {"format": "date-time"}})

    def to_internal_value(self, data: Any) -> Any:
        try:
            return datetime.fromisoformat(data.upper() if _RFC_3339.fullmatch(data) else "")
        except ValueError:
            self.fail("time")

    def to_representation(self, value: datetime) -> str:
        return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Array(StrictField):
    """An array of `low` to `high` items, which `child` reads and shows."""

    json_type = "array"
    bounds = ("minItems", "maxItems")
    default_error_messages = {
        "array": "must be an array",
        "low": "must have {low} or more items",
        "high": "must have at most {high} items",
    }

    def __init__(self, child: AnyField, **options: Any) -> None:
        super().__init__(schema={"items": child}, **options)
        self.child = child

    def to_internal_value(self, data: Any) -> Any:
        if not isinstance(data, list):
            self.fail("array")
        if not self.in_range(len(data)):
            self.fail("low" if len(data) < (self.low or 0) else "high", low=self.low, high=self.high)
        return [read_at(index, self.child, item) for index, item in enumerate(data)]

    def to_representation(self, value: Any) -> Any:
        items = super().to_representation(value)
        return [self.child.to_representation(item) for item in (items.all() if isinstance(items, BaseManager) else items)]


class StringMap(StrictField):
    """An object of strings with at most `high` members, whose names `check_name` checks."""

    json_type = "object"
    bounds = ("minProperties", "maxProperties")
    default_error_messages = {"high": "must have at most {high} members"}

    def __init__(self, *, child: Text | None = None, check_name: Rule = None, **options: Any) -> None:
        self.child, self._name = child or Text(), Text(parse=check_name)
        super().__init__(schema={"additionalProperties": self.child}, **options)

    def to_internal_value(self, data: Any) -> Any:
        if not isinstance(data, dict):
            self.fail("object")
        if not self.in_range(len(data)):
            self.fail("high", high=self.high)
        for name in data:
            read_at(name, self._name, name)
        return {name: read_at(name, self.child, text) for name, text in data.items()}


class StringOrArray(StrictField):
    """A string, or an array of strings."""

    json_type = None
    default_error_messages = {"type": "must be a string or an array of strings"}

    def __init__(self, string: Text, array: Array, **options: Any) -> None:
        super().__init__(schema={"oneOf": [string, array]}, **options)
        self._string, self._array = string, array

    def to_internal_value(self, data: Any) -> Any:
        if not isinstance(data, str | list):
            self.fail("type")
        return (self._string if isinstance(data, str) else self._array).run_validation(data)


class ByType(StrictField):
    """An object that is read by the child for its `type`. `component` names it in the OpenAPI document."""

    json_type = None

    def __init__(self, component: str, *children: Any, **options: Any) -> None:
        self.by_type: dict[str, Any] = {type_: child for child in children for type_ in child.fields["type"].by_text}
        super().__init__(schema={"allOf": [PolymorphicProxySerializer(component, self.by_type, "type")]}, **options)
        self._type = Choice(tuple(self.by_type))

    def to_internal_value(self, data: Any) -> Any:
        if not isinstance(data, dict):
            self.fail("object")
        if data.get("type") is None:
            raise error_at("type", [REQUIRED])
        return self.by_type[read_at("type", self._type, data["type"])].run_validation(data)
