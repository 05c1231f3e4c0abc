"""The counts of all processes of a machine, added up."""

from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from orchestrator_site.base.measurements import count_file
from orchestrator_site.base.measurements.metrics import HTTP_REQUESTS, JOB_QUEUE, JOBS
from orchestrator_site.base.measurements.process_counts import ProcessCounts, Series
from orchestrator_site.ops import metrics_counts
from orchestrator_site.ops.metrics_counts import CountsCollector

pytestmark = pytest.mark.stateless

REQUESTS = Series(HTTP_REQUESTS.name, (), ())


@pytest.fixture
def shown(tmp_path: Path) -> Callable[..., float | None]:
    registry = CollectorRegistry()
    registry.register(CountsCollector(tmp_path))
    return lambda name, **labels: registry.get_sample_value(name, labels)


def process(directory: Path, requests: int = 0) -> ProcessCounts:
    counts = ProcessCounts()
    counts.keep_in(directory)
    if requests:
        counts.add(REQUESTS, requests)
    return counts


def die(counts: ProcessCounts) -> None:
    assert counts._file is not None
    counts._file.close()


def files(directory: Path) -> int:
    return len(list(directory.glob("*.counts")))


def test_all_processes_are_summed_also_those_that_have_ended(tmp_path: Path, shown: Callable[..., float | None]) -> None:
    # Given three processes, two of which have ended
    first, second, third = (process(tmp_path, requests) for requests in (1, 2, 4))
    die(first)
    die(second)

    # I expect the sum, again and again, and only the files of those that live
    assert [shown("http_requests_total") for _ in range(3)] == [7, 7, 7]
    assert files(tmp_path) == 1

    # When the last one goes on and ends
    third.add(REQUESTS, 8)
    die(third)

    # I expect nothing to be lost
    assert [shown("http_requests_total") for _ in range(3)] == [15, 15, 15]
    assert files(tmp_path) == 0


def test_the_number_of_files_does_not_grow_with_restarts(tmp_path: Path, shown: Callable[..., float | None]) -> None:
    for restarts in range(1, 30):
        die(process(tmp_path, 1))
        assert shown("http_requests_total") == restarts

    assert len(list(tmp_path.iterdir())) < 6


@pytest.mark.parametrize("call", ["fsync", "replace", "unlink"])
def test_nothing_is_lost_or_counted_twice_if_metrics_is_killed_while_it_merges(
    tmp_path: Path, shown: Callable[..., float | None], monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    # Given the counts of processes that have ended, some of which were merged before
    die(process(tmp_path, 1))
    assert shown("http_requests_total") == 1
    die(process(tmp_path, 2))
    die(process(tmp_path, 4))

    # When the process is killed at this call
    class Killed(BaseException):
        pass

    def kill(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(metrics_counts.os if call == "fsync" else Path, call, kill)
        with pytest.raises(Killed):
            shown("http_requests_total")

    # I expect the same as without
    assert shown("http_requests_total") == 7
    die(process(tmp_path, 8))
    assert shown("http_requests_total") == 15


def test_counts_are_shown_although_nothing_can_be_merged(
    tmp_path: Path, shown: Callable[..., float | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a full disk
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(metrics_counts.os, "fsync", refuse)
    die(process(tmp_path, 3))

    # I expect the files to stay
    assert [shown("http_requests_total") for _ in range(2)] == [3, 3]
    assert files(tmp_path) == 1


def test_buckets_are_cumulative(tmp_path: Path, shown: Callable[..., float | None]) -> None:
    # Given jobs that waited for different times, in two processes
    series = Series(JOB_QUEUE.name, (), JOB_QUEUE.bounds)
    first, second = process(tmp_path), process(tmp_path)
    first.observe(series, 0.1)
    first.observe(series, 0.2)
    second.observe(series, 1e6)

    # I expect what Prometheus understands
    assert [shown("job_queue_seconds_bucket", le=le) for le in ("0.1", "0.25", "0.5", "86400.0", "+Inf")] == [1, 2, 2, 2, 3]
    assert shown("job_queue_seconds_count") == 3
    assert shown("job_queue_seconds_sum") == pytest.approx(1e6 + 0.3)


def test_only_images_with_a_series_are_shown(tmp_path: Path, shown: Callable[..., float | None]) -> None:
    # Given an image that had a series, and lost it to others
    counts = process(tmp_path)
    for image in ("alpine", "other"):
        counts.add(Series(JOBS.name, (image,), ()), 1)
    counts.images.label("alpine")
    assert shown("jobs_total", image="alpine") == 1
    (tmp_path / "images.json").write_text('["debian"]')

    # I expect it not to be shown
    assert shown("jobs_total", image="alpine") is None
    assert shown("jobs_total", image="other") == 1


def test_counts_of_another_release_with_other_buckets_are_left_out(tmp_path: Path, shown: Callable[..., float | None]) -> None:
    process(tmp_path).observe(Series(JOB_QUEUE.name, (), (1.0, 2.0)), 1.0)

    assert shown("job_queue_seconds_count") == 0


def test_a_process_that_cannot_write_counts_in_memory(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a directory that cannot be made
    (tmp_path / "file").touch()
    counts = process(tmp_path / "file" / "metrics", 2)

    # I expect it to say so, and to count
    assert counts.numbers(REQUESTS) == (2,)
    assert "STATE_DIR is not writable" in caplog.text


def test_counts_are_complete_again_when_the_disk_is_no_longer_full(
    tmp_path: Path, shown: Callable[..., float | None], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # Given a process on a full disk, which has counted
    counts = process(tmp_path, 1)

    def refuse(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(count_file.os, "pwrite", refuse)
        counts.add(REQUESTS, 1)
        counts.add(REQUESTS, 1)

    # When it counts again with space
    counts.add(REQUESTS, 1)

    # I expect all to be there, and one warning
    assert shown("http_requests_total") == 4
    assert caplog.text.count("No space left") == 1
