"""Reading a pod's log from any place, over rotations, restarts of the kubelet, and lines of the same time."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, Final, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.engine.kubernetes.logs import pod_logs
from jobs.engine.kubernetes.logs.log_requests import LogRequests
from jobs.engine.protocol import START_OF_LOG, Frame, Frames, LogPosition
from jobs.errors import EngineRefused
from orchestrator_site.base.intervals import EngineIntervals
from tests.helpers.log_frames import flat

pytestmark = pytest.mark.stateless

PAUSE: Final = None  # in what a stream sends
START: Final = START_OF_LOG


def time(number: int) -> str:
    return f"2026-01-01T00:{number // 60:02}:{number % 60:02}.000000000Z"


def line(number: int, text: str = "") -> Frame:
    return Frame("stdout", time(number), f"{text or number}\n".encode())


def lines(*numbers: int) -> list[Frame]:
    return [line(number) for number in numbers]


class Stream:
    """A `ByteStream` that sends frames, and is silent where the script says so."""

    def __init__(self, script: Sequence[Frame | None]) -> None:
        self._script = list(script)

    def ready(self, seconds: float) -> bool:
        if self._script and self._script[0] is PAUSE:
            del self._script[0]
            return False
        return True

    def read(self) -> bytes:
        while self._script and self._script[0] is PAUSE:
            del self._script[0]
        if not self._script:
            return b""
        frame = self._script.pop(0)
        assert frame is not None
        return f"{frame.time} ".encode() + frame.data


class Node:
    """What a node has: the file that it writes now, and what it sends to each reader that follows."""

    def __init__(
        self,
        *followed: Sequence[Frame | None],
        file: Sequence[Frame] = (),
        cut: int | None = None,
        cut_again: int | None = None,
    ) -> None:
        self.intervals = EngineIntervals(cluster_log_file=0.0, cluster_log=0.05)
        self.is_final = False
        self.file = list(file)
        self.opened: list[dict[str, str]] = []
        self._followed = iter(followed)
        self.cut: int | None = cut  # where the kubelet is restarted while it sends the file
        self._cut_again = cut_again  # … each time after that

    @contextmanager
    def open(self, params: Mapping[str, str], *, follow: bool = False) -> Iterator[Any]:
        self.opened.append(dict(params))
        since = params.get("sinceTime", "")[:19]
        sent = next(self._followed) if follow else self.file[: self.cut]
        yield Stream([frame for frame in sent if frame is PAUSE or frame.time[:19] >= since])

    def pause(self) -> None:
        self.cut = self._cut_again

    def first_time(self) -> str:
        return self.file[0].time if self.file else ""

    def last_frames(self) -> list[Frame]:
        return self.file[-2:]


def read(
    node: Node, *, skip: int = 0, follow: bool = False, after: LogPosition = START, is_final: bool = False
) -> list[Frames | None]:
    node.is_final = is_final
    requests = cast("LogRequests", node)
    max_pause = 0.25 if follow else None
    with pod_logs.open_log(requests, skip=skip, tail=None, after=after, max_pause=max_pause) as frames:
        return list(frames)


def numbers(seen: list[Frames | None]) -> list[int | str]:
    """Return the numbers of the lines, and `gap` where the engine says that lines may be missing."""
    found: list[int | str] = []
    for frames in seen:
        found += ["gap"] if frames is not None and frames.after_gap else []
        found += [int(frame.data) for frame in flat([frames])]
    return found


@pytest.fixture(autouse=True)
def checked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at the node's file before each line."""
    monkeypatch.setattr(pod_logs, "_CHECKED_BYTES", 1)


@given(st.lists(st.integers(0, 2), max_size=12), st.integers(0, 12), st.booleans())
def test_a_log_goes_on_behind_any_frame(steps: list[int], count: int, follow: bool) -> None:
    # Given a log, several of whose frames in a row have the same time
    moment, log = 100, []
    for number, step in enumerate(steps):
        moment += step
        log.append(line(moment, f"{number}"))
    known = log[:count]
    place = START.moved([frame.time for frame in known]) if known else START

    seen = read(Node(log, file=log), after=place, follow=follow, is_final=not follow)

    assert flat(seen) == log[count:]
    assert not any(frames.after_gap for frames in seen if frames)


def test_a_reopened_log_is_asked_for_from_a_bit_before_the_place() -> None:
    # Given a clock that was set back by 3 s behind the place
    log = lines(100, 101, 98, 99)

    node = Node(file=log)
    assert numbers(read(node, after=LogPosition(time(101), 1))) == [98, 99]
    assert node.opened == [{"sinceTime": "2026-01-01T00:01:31Z"}]


def test_what_follows_a_place_in_an_earlier_file_comes_after_a_gap() -> None:
    assert numbers(read(Node(file=lines(107, 108)), after=LogPosition(time(101), 1))) == ["gap", 107, 108]


def test_nothing_is_read_again_if_the_last_line_is_known() -> None:
    node = Node(file=lines(1, 2))

    assert read(node, after=LogPosition(time(2), 1), is_final=True) == []
    assert node.opened == []


def test_a_second_line_of_the_same_time_is_not_taken_for_the_first() -> None:
    log = [*lines(1, 2), line(2, "3")]

    assert numbers(read(Node(file=log), after=LogPosition(time(2), 1), is_final=True)) == [3]


@pytest.mark.parametrize("after", [START, LogPosition(time(1), 1)])
@pytest.mark.parametrize("cut", [0, 1, 2])
def test_a_rest_that_the_kubelet_did_not_send_is_read_again(after: LogPosition, cut: int) -> None:
    # Given a kubelet that is restarted while it sends a log, after which the answer ends as if it were complete
    seen = read(Node(file=lines(1, 2, 3), cut=cut), after=after, is_final=True)

    assert numbers(seen) == ([2, 3] if after.frames else [1, 2, 3])


@pytest.mark.parametrize("cut", [0, 1, 2, 3])
def test_first_lines_are_left_out_once_if_a_log_is_read_again(cut: int) -> None:
    seen = read(Node(file=lines(1, 2, 33, 44), cut=cut), skip=2, is_final=True)

    assert numbers(seen) == [33, 44]


def test_a_node_that_sends_more_each_time_may_take_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a kubelet that is restarted after each line, so that the whole takes longer than a node may send nothing
    node = Node(file=lines(*range(1, 9)), cut=1)
    node.intervals = EngineIntervals(cluster_log=1.5)
    now = 0.0

    def pause() -> None:
        nonlocal now
        now += 1.0
        node.cut = int(now) + 1

    node.pause = pause  # type: ignore[method-assign]
    monkeypatch.setattr(pod_logs, "time", SimpleNamespace(monotonic=lambda: 1 + now))

    assert numbers(read(node, is_final=True)) == [*range(1, 9)]


def test_a_rest_that_is_never_sent_is_lost() -> None:
    with pytest.raises(EngineRefused):
        read(Node(file=lines(1, 2, 3), cut=2, cut_again=2), is_final=True)


def test_a_rest_is_complete_if_the_last_line_came_in_parts() -> None:
    # Given a last line whose end the node keeps as an entry of its own, with a later time
    node = Node(file=[*lines(1, 2), Frame("stdout", time(2), b"beginning and end\n")])
    node.last_frames = lambda: [Frame("stdout", time(3), b"end\n")]  # type: ignore[method-assign]

    assert flat(read(node, is_final=True))[-1].data == b"beginning and end\n"


def test_an_empty_log_is_complete() -> None:
    assert read(Node(), is_final=True) == []


def test_a_reader_that_goes_on_with_a_new_file_marks_the_gap_there() -> None:
    # Given a node that has begun a new file, which the reader has not reached yet
    node = Node(lines(1, 2, 5, 6), file=lines(5, 6))

    assert numbers(read(node, follow=True)) == [1, 2, "gap", 5, 6]


def test_a_gap_that_was_noticed_late_is_marked_nevertheless() -> None:
    # Given a node that begins a new file after its first line has been read
    node = Node([*lines(1, 5, 6), PAUSE, *lines(7)], file=lines(1))
    requests = cast("LogRequests", node)
    seen = []
    with pod_logs.open_log(requests, skip=0, tail=None, after=START, max_pause=0.25) as frames:
        for some in frames:
            seen.append(some)
            if numbers(seen) == [1, 5]:
                node.file = lines(5, 6, 7)

    assert numbers(seen) == [1, 5, "gap", 6, 7]


def test_a_reader_that_was_left_behind_goes_on_with_the_new_file() -> None:
    # Given a reader that has come to the end of the old file when the new one had been begun
    node = Node([*lines(1, 2), PAUSE], lines(5, 6), file=lines(5, 6))

    assert numbers(read(node, follow=True)) == [1, 2, "gap", 5, 6]


def test_a_new_file_may_be_empty_yet() -> None:
    node = Node([*lines(1, 2), PAUSE], lines(5, 6), file=lines(1))
    requests = cast("LogRequests", node)
    seen = []
    with pod_logs.open_log(requests, skip=0, tail=None, after=START, max_pause=0.25) as frames:
        for some in frames:
            seen.append(some)
            if numbers(seen) == [1]:
                node.file = []
            elif numbers(seen) == [1, 2, "gap"]:
                node.file = lines(5, 6)

    assert numbers(seen) == [1, 2, "gap", 5, 6]


def test_a_pause_is_reported_and_is_no_gap() -> None:
    seen = read(Node([*lines(1), PAUSE, *lines(2)], file=lines(1, 2)), follow=True)

    assert [frames and flat([frames]) for frames in seen] == [lines(1), None, lines(2)]


def test_a_log_that_prints_little_costs_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pod_logs, "_CHECKED_BYTES", 10_000)
    node = Node([*lines(1), PAUSE, *lines(2), PAUSE], file=lines(5))
    node.first_time = pytest.fail  # type: ignore[assignment]

    assert numbers(read(node, follow=True)) == [1, 2]


def test_a_log_that_prints_a_lot_costs_a_request_a_second() -> None:
    node = Node(lines(*range(1, 50)), file=lines(1))
    node.intervals = EngineIntervals(cluster_log_file=1000.0)
    node.first_time = pytest.fail  # type: ignore[assignment]

    assert numbers(read(node, follow=True)) == [*range(1, 50)]
