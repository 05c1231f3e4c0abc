"""Which form of log the service chooses."""

import io
import logging
import logging.config
from collections.abc import Iterator

import pytest

from orchestrator_site.base.log_context import log_context
from orchestrator_site.ops.logs import log_configuration

pytestmark = pytest.mark.stateless

LOGGER = "tests.of.the.log"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def root_logger() -> Iterator[None]:
    """Restore the root logger, which the tests configure."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


def logged(stream: io.StringIO, *, embedded: bool, **variables: str) -> str:
    """Return what a service logs to `stream`."""
    logging.config.dictConfig(log_configuration(embedded=embedded, loggers={}, stream=stream, variables=variables))
    with log_context(job="a"):
        logging.getLogger(LOGGER).info("hello")
    return stream.getvalue()


@pytest.mark.parametrize("embedded", [True, False])
def test_a_terminal_gets_coloured_text(embedded: bool) -> None:
    line = logged(Terminal(), embedded=embedded)
    assert "\x1b[32mINFO" in line
    assert "job=a" in line


@pytest.mark.parametrize("variables", [{"NO_COLOR": "1"}, {"NO_COLOR": "1", "FORCE_COLOR": "1"}, {"TERM": "dumb"}])
def test_colours_can_be_turned_off(variables: dict[str, str]) -> None:
    line = logged(Terminal(), embedded=False, **variables)
    assert "\x1b" not in line
    assert f"INFO     {LOGGER}: hello  job=a" in line


def test_an_empty_no_color_counts_as_not_set() -> None:
    assert "\x1b" in logged(Terminal(), embedded=False, NO_COLOR="")


def test_a_pipe_gets_json_in_production() -> None:
    assert '"message": "hello", "job": "a"}' in logged(io.StringIO(), embedded=False)


def test_a_pipe_gets_text_with_the_date_when_embedded() -> None:
    line = logged(io.StringIO(), embedded=True)
    assert line[:2] == "20"
    assert f"INFO     {LOGGER}: hello  job=a\n" in line
    assert "\x1b" not in line


def test_force_color_says_that_a_pipe_ends_at_a_terminal() -> None:
    assert "\x1b[32mINFO" in logged(io.StringIO(), embedded=False, FORCE_COLOR="1")
