"""Streams with an event each, made as the service makes them: `python -m tests.bench.stream_load STREAMS URL...`.

A process of its own, so that it can be run in the environment of any installation. It says when all is committed.
"""

import sys
import uuid
from collections.abc import Callable

import django
from django.db import transaction


def load(streams: int, *urls: str, committed: Callable[[], object] = bool) -> None:
    """Publish `streams` due streams to each URL in one transaction; call `committed` before any message is sent."""
    from callbacks import outbox

    with transaction.atomic():
        transaction.on_commit(committed)
        for url in urls:
            for number in range(streams):
                stream = uuid.uuid4()
                outbox.subscribe(stream, f"job-{number}", url, keys=("key",))
                outbox.publish(stream, "orchestrator.job.start", "orchestrator/service", {"jobId": f"job-{number}", "meta": {}})


if __name__ == "__main__":
    django.setup()
    load(int(sys.argv[1]), *sys.argv[2:], committed=lambda: print("committed", flush=True))
