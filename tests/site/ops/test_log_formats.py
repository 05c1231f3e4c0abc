"""The two forms of a log line."""

import json
import logging
import sys

import pytest

from orchestrator_site.ops.log_formats import JSONFormatter, TextFormatter

pytestmark = pytest.mark.stateless

HOSTILE = 'a\nb\r\x1b[31m\x9b0m\x85\u2028\u202ec "d"'


def record_of(
    message: str = "hello", *, name: str = "jobs.worker", level: int = logging.INFO, **details: object
) -> logging.LogRecord:
    return logging.makeLogRecord(
        {"name": name, "msg": message, "levelno": level, "levelname": logging.getLevelName(level)} | details
    )


def with_error(message: str) -> logging.LogRecord:
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        return record_of(message, level=logging.ERROR, exc_info=sys.exc_info())


def text(record: logging.LogRecord, *, colours: bool = False) -> str:
    return TextFormatter(time_format="TIME", colours=colours).format(record)


def is_one_harmless_line(line: str) -> bool:
    return len(line.splitlines()) == 1 and all(character.isprintable() for character in line)


def test_json_has_the_details_as_members() -> None:
    line = json.loads(JSONFormatter().format(record_of("hällo", job="a", count=3)))
    assert line.pop("time").endswith("+00:00")
    assert line == {"level": "info", "logger": "jobs.worker", "message": "hällo", "job": "a", "count": 3}


def test_json_is_one_line_whatever_is_in_it() -> None:
    # When a message, a detail and the error have control characters
    line = JSONFormatter().format(with_error(HOSTILE))
    detail = JSONFormatter().format(record_of(detail=HOSTILE))

    # I expect one line that says the same
    assert is_one_harmless_line(line)
    assert is_one_harmless_line(detail)
    assert json.loads(line)["message"] == json.loads(detail)["detail"] == HOSTILE


def test_text_is_the_message_and_the_details() -> None:
    line = text(record_of(job="a", message_of_engine="two words", empty=""))
    assert line == 'TIME INFO     hello  job=a message_of_engine="two words" empty=""'


def test_what_the_message_names_is_a_member_of_json_and_not_repeated_in_text() -> None:
    record = record_of("it took %(ms)d ms", args={"ms": 3})
    assert text(record) == "TIME INFO     it took 3 ms"
    assert json.loads(JSONFormatter().format(record))["ms"] == 3


def test_what_a_library_logs_cannot_replace_a_member() -> None:
    record = record_of("%s", name="urllib3", args={"level": "of the library"})
    assert json.loads(JSONFormatter().format(record))["level"] == "info"


def test_text_names_the_loggers_of_libraries() -> None:
    assert "urllib3.pool: hello" in text(record_of(name="urllib3.pool"))


def test_text_is_one_line_whatever_is_in_it() -> None:
    assert is_one_harmless_line(text(record_of(HOSTILE)))
    assert is_one_harmless_line(text(record_of(detail=HOSTILE)))
    assert 'detail="a\\nb\\r\\u001b[31m' in text(record_of(detail=HOSTILE))


def test_a_detail_cannot_pretend_to_be_another() -> None:
    assert text(record_of(detail="a job=b")).endswith('detail="a job=b"')
    assert text(record_of(detail='"a" job=b')).endswith('detail="\\"a\\" job=b"')


def test_the_lines_of_a_traceback_are_indented() -> None:
    # When an error whose text has line feeds is logged
    first, *rest = text(with_error("it failed")).splitlines()

    # I expect no line of it to look like a record
    assert first == "TIME ERROR    it failed"
    assert rest[0] == "    Traceback (most recent call last):"
    assert all(line.startswith("    ") and is_one_harmless_line(line) for line in rest)


def test_colours_surround_the_parts_and_change_no_character() -> None:
    # When the same record is shown with and without colours
    plain, coloured = (text(record_of(job="a", level=logging.WARNING), colours=colours) for colours in (False, True))

    # I expect escape sequences in one of them only
    assert "\x1b[33mWARNING \x1b[0m" in coloured
    assert "\x1b" not in plain
    for code in ("\x1b[33m", "\x1b[2m", "\x1b[0m"):
        coloured = coloured.replace(code, "")
    assert coloured == plain
