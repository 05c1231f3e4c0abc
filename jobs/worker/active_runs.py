"""The runs of one worker process."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from jobs.lifecycle import Claim
from jobs.running.runner import Run


class ActiveRuns:
    """The jobs that threads of this process drive, or that wait in its upload pool. Thread-safe."""

    def __init__(self, max_downloading: int) -> None:
        """Allow at most `max_downloading` jobs that have not started to have inputs to download."""
        self._max_downloading = max_downloading
        self._runs: dict[Claim, Run] = {}
        self._reserved_downloads = 0  # by threads that are about to claim a job
        self._empty = threading.Event()
        self._empty.set()
        self._lock = threading.Lock()

    def add(self, run: Run) -> None:
        with self._lock:
            self._runs[run.claim] = run
            self._empty.clear()

    def remove(self, run: Run) -> None:
        with self._lock:
            del self._runs[run.claim]
            if not self._runs:
                self._empty.set()

    def snapshot(self) -> list[Run]:
        """Return the runs at this moment."""
        with self._lock:
            return list(self._runs.values())

    def wait_until_empty(self, timeout: float) -> None:
        """Return when there is no run, or after `timeout` seconds."""
        self._empty.wait(timeout)

    @property
    def accepts_downloads(self) -> bool:
        """Whether one more job with downloads may be claimed."""
        with self._lock:
            return self._has_download_slot()

    @contextmanager
    def download_slot(self) -> Iterator[bool]:
        """Keep a slot for a job with downloads inside; yield False if none is free."""
        with self._lock:
            reserved = self._has_download_slot()
            self._reserved_downloads += reserved
        try:
            yield reserved
        finally:
            with self._lock:
                self._reserved_downloads -= reserved

    def _has_download_slot(self) -> bool:
        downloading = sum(run.may_download for run in self._runs.values())
        return downloading + self._reserved_downloads < self._max_downloading
