"""The counts of this process: in memory, and from `keep_in` on also in a file, from which `metrics` reads them."""

import json
import logging
import threading
from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

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

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers: dict[Series, list[float]] = {}
        self._names: dict[Series, str] = {}  # encoded
        self._file: CountFile | None = None
        self._is_failing = False
        self.images = ImageNames()

    def keep_in(self, directory: Path) -> None:
        """Keep the counts in a file in `directory`. If that is impossible, `metrics` shows nothing of this process."""
        with self._lock:
            if self._file is not None:
                return
            try:
                self._file = CountFile(directory)
            except OSError as error:
                logger.warning("the metrics of this process are lost: STATE_DIR is not writable: %s", error.strerror)
                return
            self.images.share(directory)
            for series in self._numbers:
                self._write(series)

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
        if self._file is None:
            return
        try:
            self._file.write(self._names[series], self._numbers[series])
        except OSError as error:
            if not self._is_failing:
                logger.warning("metrics cannot be written to STATE_DIR: %s", error.strerror or error)
            self._is_failing = True
        else:
            self._is_failing = False


counts: Final = ProcessCounts()


def keep_in(state_dir: Path) -> None:
    """Keep the counts of this process below STATE_DIR. Each process calls it once, after it was forked."""
    counts.keep_in(state_dir / DIRECTORY)
