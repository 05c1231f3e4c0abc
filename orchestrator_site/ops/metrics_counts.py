"""Adds up the counts of all processes of this machine, also of those that have ended.

Files of dead processes are merged into one, so that their number does not grow with restarts. It names the files that are in it:
so none is counted twice, whenever this process is killed.
"""

import fcntl
import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Final

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.utils import floatToGoString

from orchestrator_site.base.measurements import count_file, image_names
from orchestrator_site.base.measurements.metrics import METRICS, Counter, Histogram
from orchestrator_site.base.measurements.process_counts import Series
from orchestrator_site.base.measurements.shared_files import make_directory, open_shared

logger = logging.getLogger(__name__)

_MERGED: Final = "ended.json"
_LOCK: Final = "ended.lock"
_BATCH: Final = 100  # files that are open at once
_IMAGE: Final = "image"
_BY_NAME: Final = {metric.name: metric for metric in METRICS}

Totals = dict[Series, list[float]]


class CountsCollector:
    """A collector of Prometheus' client for the counters and histograms in a directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def collect(self) -> Iterable[Metric]:
        """Return all metrics. Those without labels, and those whose labels are known, are there from the start.

        Raise `OSError` if the files cannot be read: with zeros instead, all that was ever counted would look new later.
        """
        make_directory(self._directory)
        with _exclusive(self._directory):
            totals = _add_up(self._directory)
        return [
            _family(metric, {series.labels: numbers for series, numbers in totals.items() if series.metric == metric.name})
            for metric in METRICS
        ]


def _add_up(directory: Path) -> Totals:
    """Return the counts of all files, and merge those of dead processes. The caller has the directory for itself."""
    images = {*image_names.read_names(directory), image_names.OTHER}
    merged, totals = _read_merged(directory, images)
    for name in merged:  # the last merge was interrupted before they were deleted
        (directory / name).unlink(missing_ok=True)
    paths = sorted(directory.glob(f"*{count_file.SUFFIX}"))
    living = [
        path for start in range(0, len(paths), _BATCH) for path in _merge(directory, totals, paths[start:][:_BATCH], images)
    ]
    for path in living:
        _add(totals, count_file.read(path), images)
    return totals


def _merge(directory: Path, totals: Totals, paths: Sequence[Path], images: set[str]) -> list[Path]:
    """Merge those of the files whose processes have ended, and return the others.

    They are locked until they are deleted: a file without a lock may also be that of a process that is about to lock it.
    """
    with ExitStack() as locks:
        dead = [path for path in paths if locks.enter_context(count_file.abandoned(path))]
        added = {series: list(numbers) for series, numbers in totals.items()}
        for path in dead:
            _add(added, count_file.read(path), images)
        try:
            if dead:
                _store_merged(directory, added, dead)
        except OSError as error:
            logger.warning("the files of dead processes stay, because they cannot be merged: %s", error)
            return list(paths)
        totals.update(added)
        for path in dead:
            path.unlink(missing_ok=True)
    return [path for path in paths if path not in dead]


def _add(totals: Totals, counts: Iterable[tuple[str, Sequence[float]]], images: set[str]) -> None:
    """Add what is to be shown of a file."""
    for name, numbers in counts:
        try:
            series = Series.decode(name)
        except ValueError:
            continue
        if _is_shown(series, images) and len(numbers) == (len(series.bounds) + 2 if series.bounds else 1):
            so_far = totals.get(series, [0.0] * len(numbers))
            totals[series] = [a + b for a, b in zip(so_far, numbers, strict=True)]


def _is_shown(series: Series, images: set[str]) -> bool:
    """Return whether a series is one of a metric as it is defined now, and of an image that has series of its own."""
    metric = _BY_NAME.get(series.metric)
    if metric is None or len(series.labels) != len(metric.labels):
        return False
    if series.bounds != (metric.bounds if isinstance(metric, Histogram) else ()):
        return False
    return _IMAGE not in metric.labels or series.labels[metric.labels.index(_IMAGE)] in images


def _read_merged(directory: Path, images: set[str]) -> tuple[set[str], Totals]:
    """Return the names of the files that are merged already, and their totals."""
    totals: Totals = {}
    try:
        merged = json.loads((directory / _MERGED).read_bytes())
        _add(totals, merged["counts"].items(), images)
        return set(merged["included"]), totals
    except FileNotFoundError:
        return set(), {}
    except (ValueError, KeyError, TypeError, AttributeError):
        logger.exception("the counts of ended processes are unreadable, and start from zero")
        return set(), {}


def _store_merged(directory: Path, totals: Totals, added: Sequence[Path]) -> None:
    """Store the totals of dead processes, with the names of the files that were added now. Raise `OSError`."""
    counts = {series.encode(): numbers for series, numbers in totals.items()}
    new = directory / f"{_MERGED}.new"
    with open(open_shared(new, os.O_TRUNC), "w") as file:
        json.dump({"included": [path.name for path in added], "counts": counts}, file)
        file.flush()
        os.fsync(file.fileno())
    new.replace(directory / _MERGED)


@contextmanager
def _exclusive(directory: Path) -> Iterator[None]:
    descriptor = open_shared(directory / _LOCK)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


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
