"""Streams with events in them, made as the service makes them: `python -m tests.bench.stream_load URL STREAMS [EVENTS]`.

A process of its own, so that it can be run in the environment of any installation.
"""

import sys
import uuid

import django
from django.db import transaction


def load(url: str, streams: int, events: int = 1) -> None:
    """So many streams to `url`, each with so many events; all of it is due at once when this returns."""
    from callbacks import outbox

    with transaction.atomic():
        for number in range(streams):
            stream = uuid.uuid4()
            outbox.subscribe(stream, f"job-{number}", url, "key", ())
            for _ in range(events):
                outbox.publish(stream, "orchestrator.job.start", "orchestrator/service", {"jobId": f"job-{number}", "meta": {}})


if __name__ == "__main__":
    django.setup()
    load(sys.argv[1], int(sys.argv[2]), *map(int, sys.argv[3:]))
