"""The counts of this process: in memory, and from `keep_in` on also in a file, from which `metrics` reads them."""

import json
import logging
import threading
import time
from bisect import bisect_left
from collections.abc import Sequence
from math import inf
from pathlib import Path
from typing import Final, NamedTuple

from orchestrator_site.base.intervals import MetricsIntervals
from orchestrator_site.base.measurements.count_file import CountFile
from orchestrator_site.base.measurements.image_names import ImageNames

logger = logging.getLogger(__name__)

DIRECTORY: Final = "metrics"  # below STATE_DIR


class Series(NamedTuple):
    """One series of a metric."""

    metric: str
    labels: tuple[str, ...]  # values
    bounds: tuple[float, ...]  # of the buckets of a histogram; of a counter empty

    def encode(self) -> str:
        return json.dumps(self, ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def decode(cls, text: str) -> "Series":
        """Raise `ValueError`."""
        match json.loads(text):
            case [str(metric), list(labels), list(bounds)]:
                return cls(metric, tuple(map(str, labels)), tuple(map(float, bounds)))
        raise ValueError("not a series")


class ProcessCounts:
    """Counts that only grow. Any thread may change them."""

    def __init__(self, intervals: MetricsIntervals = MetricsIntervals()) -> None:
        self._intervals = intervals
        self._lock = threading.Lock()
        self._numbers: dict[Series, list[float]] = {}
        self._names: dict[Series, str] = {}  # encoded
        self._directory: Path | None = None
        self._file: CountFile | None = None
        self._opened_at = -inf  # when that was last tried, by `time.monotonic`
        self._is_failing = False
        self.images = ImageNames()

    def keep_in(self, directory: Path) -> None:
        """Keep the counts in a file in `directory`. While that is impossible, `metrics` does not have those of this process."""
        with self._lock:
            if self._directory is None:
                self._directory = directory
                self.images.share(directory)
                self._open(directory)

    def add(self, series: Series, amount: float) -> None:
        """Add `amount` to a counter."""
        with self._lock:
            self._of(series)[0] += amount
            self._write(series)

    def observe(self, series: Series, value: float) -> None:
        """Add `value` to a histogram: to its bucket, and to the sum, which comes last."""
        with self._lock:
            numbers = self._of(series)
            numbers[bisect_left(series.bounds, value)] += 1
            numbers[-1] += value
            self._write(series)

    def numbers(self, series: Series) -> Sequence[float]:
        """Return the counter, or the buckets and the sum of the histogram."""
        with self._lock:
            return tuple(self._of(series))

    def _of(self, series: Series) -> list[float]:
        if series not in self._numbers:
            self._numbers[series] = [0.0] * (len(series.bounds) + 2 if series.bounds else 1)
            self._names[series] = series.encode()
        return self._numbers[series]

    def _write(self, series: Series) -> None:
        if self._file is not None:
            self._store(self._file, [series])
        elif self._directory is not None and time.monotonic() - self._opened_at >= self._intervals.retry:
            self._open(self._directory)

    def _open(self, directory: Path) -> None:
        """Create the file with all that was counted so far."""
        self._opened_at = time.monotonic()
        try:
            self._file = CountFile(directory)
        except OSError as error:
            self._report(error)
        else:
            self._store(self._file, list(self._numbers))

    def _store(self, file: CountFile, changed: Sequence[Series]) -> None:
        try:
            for series in changed:
                file.write(self._names[series], self._numbers[series])
        except OSError as error:
            self._report(error)
        else:
            self._is_failing = False

    def _report(self, error: OSError) -> None:
        """Log the first of several failures."""
        if not self._is_failing:
            logger.warning("metrics cannot be written to STATE_DIR: %s", error.strerror or error)
        self._is_failing = True


counts: Final = ProcessCounts()


def keep_in(state_dir: Path) -> None:
    """Keep the counts of this process below STATE_DIR. Each process calls it once, after it was forked."""
    counts.keep_in(state_dir / DIRECTORY)
