"""Shares one pull between all callers that need the same image at the same time."""

import threading
from collections.abc import Callable
from concurrent.futures import Future

from jobs.errors import ImageUnavailable
from jobs.interrupt import Interrupt
from orchestrator_site.base.log_context import in_this_context

Pull = Callable[[Interrupt], None]


class _RunningPull:
    """A pull, and how many callers wait for it."""

    def __init__(self) -> None:
        self.outcome: Future[None] = Future()
        self.abort = Interrupt()
        self.waiters = 0


class SharedPulls:
    """The pulls that are running in this process.

    Each runs in a thread of its own, so that the caller who started it may leave (a cancelled job) while others still
    wait. It is aborted when the last caller leaves.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[str, _RunningPull] = {}

    def share(self, image: str, pull: Pull, timeout: float, interrupt: Interrupt) -> None:
        """Run `pull`, or wait for a running pull of `image`, and raise what it raises.

        Raise `ImageUnavailable` after `timeout` seconds, and `Interrupted` when `interrupt` is set. `pull` is given an
        `Interrupt` that is set when no caller waits for it any more.
        """
        running = self._join(image, pull)
        try:
            woken = threading.Event()
            running.outcome.add_done_callback(lambda _: woken.set())
            with interrupt.waking(woken.set):
                woken.wait(timeout)
            interrupt.check()
            if not running.outcome.done():
                raise ImageUnavailable(f"pulling {image} took longer than {timeout:g} seconds")
            running.outcome.result()
        finally:
            self._leave(image, running)

    def _join(self, image: str, pull: Pull) -> _RunningPull:
        with self._lock:
            running = self._running.get(image)
            if running is None:
                running = _RunningPull()
                run = in_this_context(self._run)  # its lines name the job that was first to need the image
                threading.Thread(target=run, args=(image, running, pull), name=f"pull {image}", daemon=True).start()
                self._running[image] = running  # only once the thread has started, which may fail
            running.waiters += 1
            return running

    def _leave(self, image: str, running: _RunningPull) -> None:
        with self._lock:
            running.waiters -= 1
            if running.waiters:
                return
            self._forget(image, running)
        running.abort.wake()

    def _run(self, image: str, running: _RunningPull, pull: Pull) -> None:
        failure: BaseException | None = None
        try:
            pull(running.abort)
        except BaseException as error:  # of any kind: the waiting callers raise it
            failure = error
        with self._lock:  # before the outcome is set: later callers start a new pull
            self._forget(image, running)
        if failure is None:
            running.outcome.set_result(None)
        else:
            running.outcome.set_exception(failure)

    def _forget(self, image: str, running: _RunningPull) -> None:
        if self._running.get(image) is running:
            del self._running[image]
