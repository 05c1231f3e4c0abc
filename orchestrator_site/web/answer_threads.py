"""The thread pool in which the application produces answers, one turn at a time."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from orchestrator_site.web.client_connection import ClientConnection
from orchestrator_site.web.wsgi_answer import Progress, WsgiAnswer


class AnswerThreads:
    """The threads that run turns of answers; long answers share a part of them. Only the turns themselves run there."""

    def __init__(self, threads: int, long_answers: int, wake: Callable[[], object]) -> None:
        """Allow at most `long_answers` long answers to run at the same time. `wake` is called from a thread after each turn."""
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="web")
        self._max_long_answers = long_answers
        self._wake = wake
        self._finished: deque[tuple[ClientConnection, Progress]] = deque()
        self._long_queue: deque[ClientConnection] = deque()
        self._long_running = 0

    def start(self, connection: ClientConnection) -> None:
        """Run the first turn of an answer."""
        self._pool.submit(self._take_turn, connection)

    def resume(self, connection: ClientConnection) -> None:
        """Run the next turn of a long answer once it is its turn."""
        connection.is_long = True
        self._long_queue.append(connection)
        self._start_long_answers()

    def finished_turns(self) -> Iterator[tuple[ClientConnection, Progress]]:
        """Yield the connections whose turn has ended since the last call."""
        while self._finished:
            connection, progress = self._finished.popleft()
            if connection.is_long:
                self._long_running -= 1
                self._start_long_answers()
            yield connection, progress

    def abandon(self, answer: WsgiAnswer) -> None:
        """Close an unfinished answer in a thread: the application's clean-up may take time."""
        self._pool.submit(answer.close)

    def shutdown(self) -> None:
        """Start no more turns, and do not wait for those that run."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _take_turn(self, connection: ClientConnection) -> None:
        assert connection.answer is not None  # noqa: S101 - for the type checker
        progress = Progress.BROKEN
        try:
            progress = connection.answer.take_turn(connection.sock, connection.output)
        finally:
            self._finished.append((connection, progress))
            self._wake()

    def _start_long_answers(self) -> None:
        while self._long_queue and self._long_running < self._max_long_answers:
            self._long_running += 1
            self._pool.submit(self._take_turn, self._long_queue.popleft())
