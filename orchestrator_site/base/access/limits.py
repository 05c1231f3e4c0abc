"""The limits of namespaces, kept in memory for a moment: a process asks for them at each job that it stores or claims."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from orchestrator_site.base.access.models import Namespace
from orchestrator_site.base.intervals import AccessIntervals


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a namespace may use at once; None for as much as there is."""

    max_running: int | None = None
    max_cpu_millis: int | None = None
    max_memory_mib: int | None = None
    max_undecided: int | None = None

    @property
    def any_for_claims(self) -> bool:
        """Whether jobs may have to wait because of them."""
        return any(limit is not None for limit in (self.max_running, self.max_cpu_millis, self.max_memory_mib))


NONE: Final = Limits()
_NAMES: Final = ("max_running", "max_cpu_millis", "max_memory_mib", "max_undecided")


class KeptLimits:
    """The limits of all namespaces, as they are or were a moment ago.

    Any thread may ask. Each that finds them too old reads them itself: with a lock, all would wait for one while the database is
    away.
    """

    def __init__(self, intervals: AccessIntervals = AccessIntervals()) -> None:
        self._period = intervals.limits
        self._kept: tuple[float, Mapping[str, Limits]] = (float("-inf"), {})  # since when, and the limits

    def all(self) -> Mapping[str, Limits]:
        """Return the limits by namespace."""
        read_at, found = self._kept
        if (now := time.monotonic()) - read_at < self._period:
            return found
        rows = Namespace.objects.values_list("name", *_NAMES)
        found = {name: Limits(**dict(zip(_NAMES, values, strict=True))) for name, *values in rows}
        self._kept = (now, found)
        return found

    def of(self, namespace: str) -> Limits:
        return self.all().get(namespace, NONE)

    def forget(self) -> None:
        """Read them again when they are asked for."""
        self._kept = (float("-inf"), {})


kept: Final = KeptLimits()


def lock(namespace: str) -> Limits:
    """Return the limits of a namespace as they are, and let no other transaction lock them before this one ends."""
    row = Namespace.objects.select_for_update(no_key=True).filter(name=namespace).first()
    return NONE if row is None else Limits(**{name: getattr(row, name) for name in _NAMES})
