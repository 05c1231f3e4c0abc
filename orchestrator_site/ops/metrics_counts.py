"""Adds up the counts of all processes of this machine, also of those that have ended.

Files of dead processes are merged into one, so that their number does not grow with restarts. It names the files that are in it:
so none is counted twice, whenever this process is killed.
"""

import fcntl
import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any, Final

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.utils import floatToGoString

from orchestrator_site.base.measurements import count_file, image_names
from orchestrator_site.base.measurements.metrics import METRICS, Counter, Histogram
from orchestrator_site.base.measurements.process_counts import Series

logger = logging.getLogger(__name__)

_MERGED: Final = "ended.json"
_LOCK: Final = "ended.lock"
_IMAGE: Final = "image"

Totals = dict[Series, list[float]]


class CountsCollector:
    """A collector of Prometheus' client for the counters and histograms in a directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def collect(self) -> Iterable[Metric]:
        """Return all metrics. Those without labels, and those whose labels are known, are there from the start."""
        totals = self._totals()
        shown = {*self._image_names(), image_names.OTHER}
        for metric in METRICS:
            yield _family(metric, {series.labels: numbers for series, numbers in totals.items() if _shows(metric, series, shown)})

    def _totals(self) -> Totals:
        try:
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            with _exclusive(self._directory):
                return _add_up(self._directory)
        except OSError as error:
            logger.error("the counts of the processes cannot be read: %s", error)
            return {}

    def _image_names(self) -> list[str]:
        try:
            return image_names.read_names(self._directory)
        except OSError:
            return []


def _add_up(directory: Path) -> Totals:
    """Return the counts of all files, and merge those of dead processes. The caller has the directory for itself."""
    merged = _read_merged(directory)
    totals = {Series.decode(name): list(numbers) for name, numbers in merged["counts"].items()}
    included = set(merged["included"])
    dead: list[Path] = []
    living: list[Path] = []
    for path in sorted(directory.glob(f"*{count_file.SUFFIX}")):
        with count_file.abandoned(path) as is_dead:
            if path.name not in included:
                (dead if is_dead else living).append(path)
            elif is_dead:
                path.unlink(missing_ok=True)
    for path in dead:
        _add(totals, path)
    if dead:
        _merge(directory, totals, dead)
        totals = {series: list(numbers) for series, numbers in totals.items()}
    for path in living:
        _add(totals, path)
    return totals


def _add(totals: Totals, path: Path) -> None:
    for name, numbers in count_file.read(path):
        try:
            series = Series.decode(name)
        except ValueError:
            continue
        so_far = totals.get(series, [0.0] * len(numbers))
        totals[series] = [a + b for a, b in zip(so_far, numbers, strict=True)]


def _read_merged(directory: Path) -> dict[str, Any]:
    try:
        merged = json.loads((directory / _MERGED).read_bytes())
    except FileNotFoundError:
        return {"included": [], "counts": {}}
    except ValueError:
        logger.exception("the counts of ended processes are unreadable, and start from zero")
        return {"included": [], "counts": {}}
    assert isinstance(merged, dict)
    return merged


def _merge(directory: Path, totals: Totals, dead: Sequence[Path]) -> None:
    """Store the totals of dead processes, and delete their files."""
    counts = {series.encode(): numbers for series, numbers in totals.items()}
    new = directory / f"{_MERGED}.new"
    try:
        with new.open("w") as file:
            json.dump({"included": [path.name for path in dead], "counts": counts}, file)
            file.flush()
            os.fsync(file.fileno())
        new.replace(directory / _MERGED)
    except OSError as error:
        logger.warning("the files of dead processes stay, because they cannot be merged: %s", error)
        return
    for path in dead:
        path.unlink(missing_ok=True)


@contextmanager
def _exclusive(directory: Path) -> Iterator[None]:
    descriptor = os.open(directory / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _shows(metric: Counter | Histogram, series: Series, images: set[str]) -> bool:
    """Return whether a series is one of this metric, as it is defined now, and of an image that has series of its own."""
    bounds = metric.bounds if isinstance(metric, Histogram) else ()
    if (series.metric, series.bounds, len(series.labels)) != (metric.name, bounds, len(metric.labels)):
        return False
    return _IMAGE not in metric.labels or series.labels[metric.labels.index(_IMAGE)] in images


def _family(metric: Counter | Histogram, series: Mapping[tuple[str, ...], Sequence[float]]) -> Metric:
    if isinstance(metric, Counter):
        counters = CounterMetricFamily(metric.name, metric.help, labels=metric.labels)
        known = metric.known if metric.labels else ((),)
        for labels in dict.fromkeys([*known, *series]):
            counters.add_metric(labels, series.get(labels, (0.0,))[0])
        return counters
    histograms = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
    ends = [*map(floatToGoString, metric.bounds), "+Inf"]
    for labels in dict.fromkeys([*([] if metric.labels else [()]), *series]):
        numbers = series.get(labels, (0.0,) * (len(ends) + 1))
        histograms.add_metric(labels, list(zip(ends, accumulate(numbers[:-1]), strict=True)), numbers[-1])
    return histograms
