"""Readers of JSON values: each takes a value and its path, and gives it back typed or raises `InvalidRequest`.

Types are strict: `"1"` and `true` are no numbers, null is no value. A number is what it is worth, as in JSON
Schema: `1.0` is the integer 1.
"""

from collections.abc import Callable, Collection
from typing import Any, Final, TypeVar

from orchestrator_site.base.http.api_errors import InvalidRequest
from orchestrator_site.base.http.json_body import item, member

T = TypeVar("T")
D = TypeVar("D")
Reader = Callable[[object, str], T]


class Members:
    """The members of a JSON object. One that is not among `known` is refused by name."""

    def __init__(self, value: object, path: str, known: Collection[str]) -> None:
        self._members = any_object(value, path)
        self._path = path
        for name in self._members:
            if name not in known:
                raise InvalidRequest("this member is unknown", field=member(path, name))

    def get(self, name: str, read: Reader[T], default: D) -> T | D:
        if name not in self._members:
            return default
        return read(self._members[name], member(self._path, name))

    def need(self, name: str, read: Reader[T]) -> T:
        if name not in self._members:
            raise InvalidRequest("it is required", field=member(self._path, name))
        return read(self._members[name], member(self._path, name))


def any_object(value: object, path: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        if not path:
            raise InvalidRequest("the body must be a JSON object")
        raise InvalidRequest("it must be an object", field=path)
    return value


def any_text(value: object, path: str) -> str:
    if not isinstance(value, str):
        raise InvalidRequest("it must be a string", field=path)
    return value


def text(low: int, high: int) -> Reader[str]:
    """A string of so many characters."""

    def read(value: object, path: str) -> str:
        string = any_text(value, path)
        if not low <= len(string) <= high:
            raise InvalidRequest(f"it must have {low} to {high} characters", field=path)
        return string

    return read


def any_number(value: object, path: str) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidRequest("it must be a number", field=path)
    return value


def integer(low: int, high: int) -> Reader[int]:
    def read(value: object, path: str) -> int:
        number = any_number(value, path)
        if number != int(number):
            raise InvalidRequest("it must be a whole number", field=path)
        if not low <= number <= high:
            raise InvalidRequest(f"it must be from {low} to {high}", field=path)
        return int(number)

    return read


def choice(choices: Collection[T]) -> Reader[T]:
    """One of some strings."""
    by_text: Final = {str(known): known for known in choices}

    def read(value: object, path: str) -> T:
        string = any_text(value, path)
        if string not in by_text:
            raise InvalidRequest(f"it must be one of {', '.join(by_text)}", field=path)
        return by_text[string]

    return read


def array(read_item: Reader[T], low: int, high: int | None = None) -> Reader[list[T]]:
    def read(value: object, path: str) -> list[T]:
        if not isinstance(value, list):
            raise InvalidRequest("it must be an array", field=path)
        if len(value) < low:
            raise InvalidRequest(f"it must have at least {low} items", field=path)
        if high is not None and len(value) > high:
            raise InvalidRequest(f"it may have at most {high} items", field=path)
        return [read_item(entry, item(path, index)) for index, entry in enumerate(value)]

    return read


def mapping(check_name: Callable[[str, str], None], read_value: Reader[str], high: int | None = None) -> Reader[dict[str, str]]:
    """An object of strings. `check_name` takes a name and its path, and raises `InvalidRequest`."""

    def read(value: object, path: str) -> dict[str, str]:
        members = any_object(value, path)
        if high is not None and len(members) > high:
            raise InvalidRequest(f"it may have at most {high} members", field=path)
        for name in members:
            check_name(name, member(path, name))
        return {name: read_value(entry, member(path, name)) for name, entry in members.items()}

    return read
