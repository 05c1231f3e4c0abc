"""One pull at a time per image: whoever wants the same image meanwhile waits and shares the outcome."""

import threading
from collections.abc import Callable
from concurrent.futures import Future

from jobs.errors import ImageUnavailable
from jobs.interrupt import Interrupt

Pull = Callable[[Interrupt], None]


class _Shared:
    """A pull that goes on and those who wait for it."""

    def __init__(self) -> None:
        self.outcome: Future[None] = Future()
        self.abort = Interrupt()
        self.waiters = 0


class SharedPulls:
    """The pulls that go on in this process.

    A pull has a thread of its own, so that the one who asked first may leave (a cancelled job) without
    taking it from the others; when the last one leaves it is aborted.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._going_on: dict[str, _Shared] = {}

    def share(self, image: str, pull: Pull, timeout: float, interrupt: Interrupt) -> None:
        """Run `pull`, or wait for the one of `image` that goes on; raise what it raises.

        Raises `ImageUnavailable` after `timeout` seconds and `Interrupted` when `interrupt` is set. `pull`
        gets an `Interrupt` that is set when nobody waits for it any more.
        """
        shared = self._join(image, pull)
        try:
            woken = threading.Event()
            shared.outcome.add_done_callback(lambda _: woken.set())
            with interrupt.waking(woken.set):
                woken.wait(timeout)
            interrupt.check()
            if not shared.outcome.done():
                raise ImageUnavailable(f"pulling {image} took longer than {timeout:g} seconds")
            shared.outcome.result()
        finally:
            self._leave(image, shared)

    def _join(self, image: str, pull: Pull) -> _Shared:
        with self._lock:
            shared = self._going_on.get(image)
            if shared is None:
                shared = _Shared()
                threading.Thread(target=self._run, args=(image, shared, pull), name=f"pull {image}", daemon=True).start()
                self._going_on[image] = shared  # after the start: a thread that could not start leaves nothing behind
            shared.waiters += 1
            return shared

    def _leave(self, image: str, shared: _Shared) -> None:
        with self._lock:
            shared.waiters -= 1
            if shared.waiters:
                return
            self._forget(image, shared)
        shared.abort.wake()

    def _run(self, image: str, shared: _Shared, pull: Pull) -> None:
        failure: BaseException | None = None
        try:
            pull(shared.abort)
        except BaseException as error:  # whatever it is, it belongs to those who wait
            failure = error
        with self._lock:  # before the outcome is known: who comes after it gets a pull of their own
            self._forget(image, shared)
        if failure is None:
            shared.outcome.set_result(None)
        else:
            shared.outcome.set_exception(failure)

    def _forget(self, image: str, shared: _Shared) -> None:
        if self._going_on.get(image) is shared:
            del self._going_on[image]
