"""How many threads of a process new, failing and slow destinations may use."""

import uuid
from uuid import UUID

import pytest

from callbacks.delivery import thread_limiter
from callbacks.delivery.thread_limiter import ThreadLimiter
from callbacks.models import Destination

pytestmark = pytest.mark.stateless


def test_slow_hosts_share_their_threads_evenly() -> None:
    # Given eight threads for slow hosts, and one host that has acquired all that it may use
    limiter = ThreadLimiter(restricted=16, slow=8)
    holders: dict[int, list[UUID]] = {}

    def acquire(host: int, slowness: int = 1) -> bool:
        holder = uuid.uuid4()
        holders.setdefault(host, []).append(holder)
        return limiter.acquire(holder, Destination(pk=host, slowness=slowness))

    assert [acquire(1) for _ in range(8)] == [True] * 4 + [False] * 4

    # I expect one for each of the next four, and no more
    assert [acquire(host) for host in (2, 3, 3, 4, 5, 6)] == [True, True, False, True, True, False]

    # and a released one to be for those that have none
    limiter.release(holders[1][0])
    assert [acquire(host) for host in (1, 2, 6)] == [False, False, True]

    # and new hosts to have the others
    assert [acquire(7, slowness=0) for _ in range(9)] == [True] * 8 + [False]


def test_half_of_all_threads_are_for_fast_hosts() -> None:
    # Given a process with the usual number of threads
    limiter = ThreadLimiter()
    total = thread_limiter.THREADS

    # When it delivers to new hosts only, I expect these to get half of the threads
    holders = [uuid.uuid4() for _ in range(total)]
    acquired = [limiter.acquire(holder, Destination(pk=number)) for number, holder in enumerate(holders)]
    assert acquired == [True] * (total // 2) + [False] * (total // 2)

    # and fast hosts the others
    assert limiter.acquire(uuid.uuid4(), Destination(pk=total, window=2))

    # When it delivers to slow hosts only, I expect these to get a quarter
    limiter = ThreadLimiter()
    acquired = [limiter.acquire(holder, Destination(pk=number, slowness=1)) for number, holder in enumerate(holders)]
    assert acquired == [True] * (total // 4) + [False] * (total - total // 4)
