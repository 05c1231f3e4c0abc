"""The counts of all processes of a machine, added up."""

from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from orchestrator_site.base.intervals import MetricsIntervals
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


def test_many_files_are_merged_in_batches(
    tmp_path: Path, shown: Callable[..., float | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given many processes that have ended while nothing asked for the metrics, and one that lives
    monkeypatch.setattr(metrics_counts, "_BATCH", 3)
    for _ in range(10):
        die(process(tmp_path, 1))
    living = process(tmp_path, 1)

    # I expect all of them to be counted
    assert [shown("http_requests_total") for _ in range(2)] == [11, 11]
    assert files(tmp_path) == 1
    die(living)


def test_the_file_of_a_process_that_starts_meanwhile_is_not_deleted(
    tmp_path: Path, shown: Callable[..., float | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a process that has created its file, which is found to be that of a dead process before it is locked
    lock = count_file.try_lock
    scraped: list[float | None] = []

    def lock_late(descriptor: int) -> bool:
        if not scraped:
            scraped.append(None)
            scraped.append(shown("http_requests_total"))
        return lock(descriptor)

    monkeypatch.setattr(count_file, "try_lock", lock_late)

    # When it goes on
    living = process(tmp_path, 5)

    # I expect it to use another file, which is not lost
    assert scraped == [None, 0]
    assert shown("http_requests_total") == 5
    assert files(tmp_path) == 1
    die(living)


def test_a_scrape_fails_rather_than_shows_zeros(tmp_path: Path, shown: Callable[..., float | None]) -> None:
    # Given counts that cannot be read
    process(tmp_path, 3)
    (tmp_path / "ended.json").mkdir()

    # I expect an error: after zeros, all would look new
    with pytest.raises(IsADirectoryError):
        shown("http_requests_total")


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


@pytest.mark.parametrize("content", ["", "[]", '{"included": 1}', '{"counts": [], "included": []}'])
def test_counts_start_from_zero_if_those_of_ended_processes_are_unreadable(
    tmp_path: Path, shown: Callable[..., float | None], caplog: pytest.LogCaptureFixture, content: str
) -> None:
    # Given a file that a crash of the machine has left broken
    (tmp_path / "ended.json").write_text(content)
    die(process(tmp_path, 2))

    # I expect one line in the log, and the counts of the others
    assert [shown("http_requests_total") for _ in range(2)] == [2, 2]
    assert caplog.text.count("unreadable") == 1


def test_counts_of_another_release_with_other_buckets_are_left_out(tmp_path: Path, shown: Callable[..., float | None]) -> None:
    process(tmp_path).observe(Series(JOB_QUEUE.name, (), (1.0, 2.0)), 1.0)

    assert shown("job_queue_seconds_count") == 0


def test_a_process_that_cannot_write_counts_in_memory_and_tries_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    # Given a directory that cannot be made
    blocked = tmp_path / "blocked"
    blocked.touch()
    counts = ProcessCounts(MetricsIntervals(retry=0.0))
    counts.keep_in(blocked / "metrics")
    counts.add(REQUESTS, 2)

    # I expect it to count, and to say so once
    assert counts.numbers(REQUESTS) == (2,)
    assert caplog.text.count("metrics cannot be written to STATE_DIR") == 1

    # When it can be made, I expect all to be there
    blocked.unlink()
    counts.add(REQUESTS, 1)
    registry = CollectorRegistry()
    registry.register(CountsCollector(blocked / "metrics"))
    assert registry.get_sample_value("http_requests_total") == 3


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
