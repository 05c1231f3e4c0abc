"""How often something may be done, counted for all processes together: in Redis, or in this process when embedded.

What is left of an allowance is a single time, the one at which it will be whole again (the generic cell rate algorithm). It is
forgotten at that time, so that what is kept does not grow. While Redis does not answer, each process counts by itself.
"""

import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from ipaddress import IPv6Address, ip_address
from typing import Final

from django.conf import settings
from django.http import HttpRequest

from orchestrator_site.base import broker
from orchestrator_site.base.intervals import AccessIntervals

_MAX_KEPT: Final = 10_000  # in this process
_WITH_PORT: Final = re.compile(r"(?:([0-9.]+)|\[([0-9A-Fa-f:.]+)\])(?::[0-9]+)?")  # as some proxies write an address
_INTERVALS: Final = AccessIntervals()


@dataclass(frozen=True, slots=True)
class Allowance:
    """`burst` at once, and one more after each `interval`."""

    name: str
    burst: int
    interval: float

    @property
    def tolerance(self) -> float:
        """The seconds for which what is taken now may be ahead of its time."""
        return self.interval * (self.burst - 1)


WRONG_KEYS: Final = Allowance("wrong-keys", 20, _INTERVALS.wrong_key)
JOBS_OF_KEY: Final = Allowance("jobs-of-key", 1000, _INTERVALS.job_of_key)
JOBS_OF_ADDRESS: Final = Allowance("jobs-of-address", 2000, _INTERVALS.job_of_address)

# Takes from all or from none, and returns the seconds to wait, by the clock of Redis.
_SCRIPT: Final = """
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local wait = 0
local whole = {}
for index, key in ipairs(KEYS) do
  whole[index] = math.max(tonumber(redis.call('GET', key) or '0'), now)
  wait = math.max(wait, whole[index] - now - tonumber(ARGV[2 * index]))
end
if wait > 0 then return string.format('%.6f', wait) end
for index, key in ipairs(KEYS) do
  local at = whole[index] + tonumber(ARGV[2 * index - 1])
  redis.call('SET', key, string.format('%.6f', at), 'PX', math.ceil((at - now) * 1000))
end
return '0'
"""


class ProcessThrottle:
    """The allowances of this process. Any thread may take from them."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, max_kept: int = _MAX_KEPT) -> None:
        self._clock = clock
        self._max_kept = max_kept
        self._lock = threading.Lock()
        self._whole_at: OrderedDict[str, float] = OrderedDict()  # the one that was used last is the last

    def spend(self, claims: Sequence[tuple[str, Allowance]]) -> float:
        """Take one from each allowance, by key, and return 0; or take none and return the seconds to wait."""
        with self._lock:
            now = self._clock()
            whole = {key: max(self._whole_at.get(key, now), now) for key, _ in claims}
            wait = max(whole[key] - now - allowance.tolerance for key, allowance in claims)
            if wait > 0:
                return wait
            for key, allowance in claims:
                self._whole_at[key] = whole[key] + allowance.interval
                self._whole_at.move_to_end(key)
            while len(self._whole_at) > self._max_kept:
                self._whole_at.popitem(last=False)
            return 0.0

    def forget(self) -> None:
        """Make all allowances whole."""
        with self._lock:
            self._whole_at.clear()


of_this_process: Final = ProcessThrottle()


def spend(*claims: tuple[Allowance, str]) -> float:
    """Take one from the allowance of each of these, given by what identifies it.

    Return 0; or the seconds until there is one of each again, and take none.
    """
    keyed = [(f"{allowance.name}.{sha256(identity.encode()).hexdigest()[:32]}", allowance) for allowance, identity in claims]
    if not settings.CONFIGURATION.embedded:
        numbers = [number for _, allowance in keyed for number in (allowance.interval, allowance.tolerance)]
        answer = broker.evaluate(_SCRIPT, [f"throttle.{key}" for key, _ in keyed], numbers)
        if answer is not None:
            return float(answer)
    return of_this_process.spend(keyed)


def client_of(request: HttpRequest) -> str:
    """Return what identifies the sender of a request: its address, of IPv6 the network that a single host usually has.

    Behind a proxy that terminates TLS, the address is the last one in `X-Forwarded-For`, which the proxy has appended.
    """
    text: str = request.META.get("REMOTE_ADDR", "")
    if settings.CONFIGURATION.public_url.startswith("https://"):
        text = request.headers.get("X-Forwarded-For", text).rpartition(",")[2].strip()
    if with_port := _WITH_PORT.fullmatch(text):  # each connection of a client has another port
        text = with_port[1] or with_port[2]
    try:
        address = ip_address(text)
    except ValueError:
        return text[:64]
    if isinstance(address, IPv6Address):
        address = address.ipv4_mapped or IPv6Address(int(address) >> 64 << 64)
    return str(address)
