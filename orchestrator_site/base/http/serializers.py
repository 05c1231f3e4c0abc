"""Serializers of requests, query parameters and answers. drf-spectacular makes the OpenAPI document from the same fields."""

from collections.abc import Callable
from functools import cache, cached_property
from operator import attrgetter
from typing import Any, Self

from rest_framework import serializers
from rest_framework.fields import empty

from orchestrator_site.base.http.api_errors import InvalidRequest, path_of
from orchestrator_site.base.http.fields import REQUIRED, Rule, StrictField, Text, error_at, read_at
from orchestrator_site.base.http.query_string import parse_query_string


class _Shared(serializers.Serializer[Any]):
    """A serializer of which one instance serves all requests: making one copies all of its fields."""

    @classmethod
    @cache
    def shared(cls) -> Self:
        return cls()

    @cached_property
    def by_name(self) -> dict[str, Any]:
        """The fields, in a plain dictionary, which is faster than DRF's."""
        return dict(self.fields.items())


class RequestSerializer(_Shared):
    """A strict reader of an object in a request: an unknown member is an error, and the first error ends the reading.

    A member that is null counts as absent, and so does one of its field's `absent` values.
    """

    default_error_messages = StrictField.default_error_messages
    unknown = "unknown member"
    nullable = True
    absent = ()  # as a field of another serializer

    @classmethod
    def read(cls, data: object) -> Any:
        """Return what the object says. Raise `InvalidRequest`, which names the member at fault by its path."""
        try:
            return cls.shared().run_validation(data)
        except serializers.ValidationError as error:
            raise _invalid_request(error.detail) from error

    def get_fields(self) -> dict[str, Any]:
        """Return the declared fields; the OpenAPI document shows the optional ones as nullable."""
        fields: dict[str, Any] = super().get_fields()
        for field in fields.values():
            field.allow_null = self.nullable and not field.required
        return fields

    @cached_property
    def _defaults(self) -> dict[str, Any]:
        with_default = (field for field in self.by_name.values() if field.default is not empty)
        return {field.source: field.run_validation(field.default) for field in with_default}

    def run_validation(self, data: Any = empty) -> Any:
        if not isinstance(data, dict):
            self.fail("object")
        return self.validate(self.to_internal_value(data))

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        for name in data:
            if name not in self.by_name:
                raise error_at(name, [self.unknown])
        values = self._defaults.copy()
        for name, field in self.by_name.items():
            value = data.get(name)
            if value is None or (value in field.absent and not isinstance(value, bool)):
                if field.required:
                    raise error_at(name, [REQUIRED])
                continue
            values[field.source] = read_at(name, field, value)
        return values


def _invalid_request(detail: Any) -> InvalidRequest:
    """Convert what DRF nests, one member or item in another, to the sentence and its path."""
    trail: list[str | int] = []
    while isinstance(detail, dict):
        [(step, detail)] = detail.items()
        trail.append(step)
    [sentence] = detail
    return InvalidRequest(str(sentence), field=path_of(trail)) if trail else InvalidRequest(f"the body {sentence}")


class QuerySerializer(RequestSerializer):
    """A reader of query parameters; one without fields refuses all."""

    unknown = "unknown query parameter"
    nullable = False

    @classmethod
    def read(cls, data: Any) -> Any:
        """Return what the query string `data` says. Raise `InvalidRequest`, which names the parameter at fault."""
        return super().read(parse_query_string(data))

    def to_internal_value(self, data: dict[str, str]) -> dict[str, Any]:
        fields = self.by_name
        return super().to_internal_value(
            {name: fields[name].from_text(text) if name in fields else text for name, text in data.items()}
        )


class AnswerSerializer(_Shared):
    """A writer of answers: what no field names is never shown, and optional fields that are None or empty are left out.

    How to get the values is found out once for all objects: DRF's own `to_representation` does so for each object, which would
    take most of the time of a page of 1,000.
    """

    @classmethod
    def show(cls, instance: object) -> dict[str, Any]:
        return cls.shared().to_representation(instance)

    @cached_property
    def _columns(self) -> list[tuple[str, Callable[[Any], Any], Rule, bool]]:
        columns = []
        for name, field in self.by_name.items():
            get = (lambda instance: instance) if field.source == "*" else attrgetter(field.source)
            as_it_is = type(field).to_representation is StrictField.to_representation and field.show is None
            columns.append((name, get, None if as_it_is else field.to_representation, field.required))
        return columns

    def to_representation(self, instance: Any) -> dict[str, Any]:
        shown: dict[str, Any] = {}
        for name, get, convert, required in self._columns:
            value = get(instance)
            if value is not None and convert is not None:
                value = convert(value)
            if required or (value is not None and value != ""):
                shown[name] = value
        return shown


class Error(AnswerSerializer):
    """An error, with the path of the member or the name of the query parameter at fault, if there is one."""

    error = Text(help_text="One sentence.")
    field = Text(required=False, help_text="The member or query parameter at fault.")
