"""Make streams with an event each, as the service does: `python -m tests.bench.measuring.stream_load STREAMS URL...`.

This is a program, so that it can run in the environment of any installation. It prints when all is committed.
"""

import sys
import uuid
from collections.abc import Callable

import django
from django.db import transaction


def load(streams: int, *urls: str, committed: Callable[[], object] = bool) -> None:
    """Make `streams` for each URL in one transaction, all due at once. Call `committed` before any message is sent."""
    from callbacks import outbox
    from tests.helpers import factories

    with transaction.atomic():
        transaction.on_commit(committed)
        for url in urls:
            for number in range(streams):
                stream = uuid.uuid4()
                factories.subscribe(stream, f"job-{number}", url, keys=("key",))
                outbox.publish(stream, "orchestrator.job.start", "orchestrator/service", {"jobId": f"job-{number}", "meta": {}})


if __name__ == "__main__":
    django.setup()
    load(int(sys.argv[1]), *sys.argv[2:], committed=lambda: print("committed", flush=True))
