"""Resolves the user of an image by the rules of runc (libcontainer/user, GetExecUser)."""

from collections.abc import Callable, Iterator
from io import StringIO
from typing import Final

from jobs.engine.protocol import User

ROOT: Final = User(uid=0, gid=0)

_MAX_ID: Final = 2**31 - 1


def resolve(user: str, read: Callable[[str], str]) -> User:
    """Return the numeric user for an image's `user`: `name` or `uid`, either with `:group` or `:gid`, or empty.

    `read` returns the text of a file of the container, empty if it does not exist. A number is never looked up as a name. A
    uid without a group has the gid of its entry in /etc/passwd, else 0. Return root if the user cannot be determined.
    """
    name, _, group = user.partition(":")
    found = _passwd_entry(name or "0", read("/etc/passwd"))
    if found is None:
        if (uid := _number(name or "0")) is None:
            return ROOT
        found = User(uid=uid, gid=0)
    if not group:
        return found
    gid = _group_id(group, read)
    return ROOT if gid is None else User(uid=found.uid, gid=gid)


def _passwd_entry(user: str, passwd: str) -> User | None:
    wanted = _number(user)
    for fields in _entries(passwd, at_least=4):
        uid, gid = _number(fields[2]), _number(fields[3])
        if uid is not None and gid is not None and (fields[0] == user if wanted is None else uid == wanted):
            return User(uid=uid, gid=gid)
    return None


def _group_id(group: str, read: Callable[[str], str]) -> int | None:
    if (number := _number(group)) is not None:
        return number
    named = (_number(fields[2]) for fields in _entries(read("/etc/group"), at_least=3) if fields[0] == group)
    return next((gid for gid in named if gid is not None), None)


def _entries(text: str, at_least: int) -> Iterator[list[str]]:
    for line in StringIO(text):  # one line at a time: an image may have millions
        fields = line.strip().split(":", at_least)
        if len(fields) >= at_least:
            yield fields


def _number(text: str) -> int | None:
    """Return a user or group id, or None if `text` is not a valid one."""
    if not (text.isascii() and text.isdigit()) or len(text) > 10:
        return None
    return number if (number := int(text)) <= _MAX_ID else None
