"""A signal interrupts only where it is allowed to; a second one interrupts anywhere."""

import signal
from contextlib import suppress

import pytest

from orchestrator_site.client.interrupts import Interrupted, Interrupts

pytestmark = pytest.mark.stateless


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_interrupts_what_waits(number: signal.Signals) -> None:
    interrupts = Interrupts()

    with interrupts.installed(), pytest.raises(Interrupted) as interrupted, interrupts.allowed():
        signal.raise_signal(number)

    assert interrupted.value.number == number


def test_a_signal_waits_until_it_may_interrupt() -> None:
    # Given a signal that comes while a line is written
    interrupts, reached = Interrupts(), []
    with interrupts.installed():
        signal.raise_signal(signal.SIGINT)
        reached.append("the end of the line")

        # When the client waits next, I expect the interruption, and only one
        with pytest.raises(Interrupted), interrupts.allowed():
            reached.append("not this")
        with interrupts.allowed():
            reached.append("later")

    assert reached == ["the end of the line", "later"]


def test_a_second_signal_interrupts_anywhere() -> None:
    interrupts = Interrupts()

    with interrupts.installed(), pytest.raises(Interrupted) as interrupted:  # noqa: PT012
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)

    assert interrupted.value.number == signal.SIGTERM


def test_a_nested_block_does_not_end_the_permission_of_the_outer_one() -> None:
    interrupts = Interrupts()

    with interrupts.installed(), pytest.raises(Interrupted), interrupts.allowed():  # noqa: PT012
        with interrupts.allowed():
            pass
        signal.raise_signal(signal.SIGINT)


def test_the_handlers_are_restored() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)

    with Interrupts().installed():
        pass

    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    # Given a command that a shell started with `&`
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        interrupts = Interrupts()
        with interrupts.installed(), interrupts.allowed():
            signal.raise_signal(signal.SIGINT)  # I expect no interruption
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, previous)


def test_a_signal_is_not_lost_where_python_drops_errors() -> None:
    # Given a signal whose error goes no further, as in a callback of the garbage collector
    interrupts = Interrupts()
    with interrupts.installed(), pytest.raises(Interrupted), interrupts.allowed(), suppress(Interrupted):
        signal.raise_signal(signal.SIGINT)

    # When the block ends, I expect it, and not once more
    with interrupts.allowed():
        pass
