"""Serves the log of a job to its page, a piece at a time, and as a file."""

import re
from collections.abc import Iterable, Iterator
from typing import Any, Final
from uuid import UUID

from django.http import Http404, HttpRequest, HttpResponseBadRequest, JsonResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase

from jobs.admin import ansi
from jobs.api import stored_log
from jobs.api.stored_log import Log, StoredLine
from jobs.log_lines import Ending
from jobs.models import Job
from jobs.states import Stream
from orchestrator_site.base.db.transactions import release_connection

PIECE_LINES: Final = 500
PIECE_LENGTH: Final = 256 * 1024  # characters of text
_WRITTEN: Final = 64 * 1024  # characters of a file that are written to the client at once
_NUMBER: Final = re.compile(r"[0-9]{1,18}", re.ASCII)
_STATE: Final = re.compile(ansi.STATE_PATTERN, re.ASCII)
_STREAMS: Final = tuple(Stream.values)


def answer_piece(request: HttpRequest, uuid: UUID) -> HttpResponseBase:
    """Answer with lines of a log as JSON: those `after` or `before` a number, or without either the last ones.

    The answer says in which style the next line of each stream begins. A request for the lines `after` it says so, too; lines
    from another place begin in the usual style, since a style may have been set any number of lines ago.
    """
    log = _log_of(uuid)
    after, before = (request.GET.get(name) for name in ("after", "before"))
    states = {stream: request.GET.get(stream, "") for stream in _STREAMS}
    if not all(_NUMBER.fullmatch(text) for text in (after, before) if text is not None):
        return HttpResponseBadRequest("that is not the number of a line")
    if not all(_STATE.fullmatch(state) for state in states.values()):
        return HttpResponseBadRequest("that is not a style")
    if after is not None:
        page = stored_log.read_page(log, after=int(after), limit=PIECE_LINES, stream=None, length=PIECE_LENGTH)
        return _piece(log, page.lines, states, page.read_to)
    end = log.end if before is None else min(log.end, int(before) - 1)
    lines = stored_log.read_before(log, before=end + 1, limit=PIECE_LINES, length=PIECE_LENGTH)
    return _piece(log, lines, dict.fromkeys(_STREAMS, ""), max(0, end))


def answer_file(uuid: UUID) -> HttpResponseBase:
    """Answer with the whole log as a text file, byte for byte what was printed if that is UTF-8."""
    log = _log_of(uuid)
    name = Job.objects.values_list("id", flat=True).get(uuid=uuid)
    text = _in_parts(stored_log.read_text(log, after=0, limit=None, stream=None))
    answer = StreamingHttpResponse(text, content_type="text/plain; charset=utf-8")
    answer["Content-Disposition"] = f'attachment; filename="{name}.log"'  # an id has no character that must be quoted
    return answer


def _log_of(uuid: UUID) -> Log:
    log = stored_log.find_log(uuid=uuid)
    if log is None:
        raise Http404("there is no such job")
    return log


def _in_parts(texts: Iterable[str]) -> Iterator[bytes]:
    """Yield small parts without holding a database connection, since a client may read slowly."""
    for text in texts:
        release_connection()
        for start in range(0, len(text), _WRITTEN):
            yield text[start : start + _WRITTEN].encode()


def _piece(log: Log, lines: list[StoredLine], states: dict[str, str], read_to: int) -> JsonResponse:
    styles = {stream: ansi.PLAIN.after(state) for stream, state in states.items()}
    shown = []
    for line in lines:
        runs, styles[line.stream] = ansi.read_line(line.text, styles[line.stream])
        shown.append(_line(line, runs))
    is_at_end = read_to >= log.end
    return JsonResponse(
        {
            "lines": shown,
            "after": read_to,  # of the request for the next lines, with the styles
            "styles": {stream: style.state for stream, style in styles.items()},
            "more": not is_at_end,
            "ended": is_at_end and log.ended,
        }
    )


def _line(line: StoredLine, runs: list[ansi.Run]) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "number": line.number,
        "stream": line.stream,
        "time": line.time,
        "runs": [_run(run) for run in runs],
    }
    if line.ending == Ending.PARTIAL:
        shown["partial"] = True
    if line.ending == Ending.MARKER:
        shown["marker"] = True
    return shown


def _run(run: ansi.Run) -> dict[str, Any]:
    """Return the text and, as far as they are not the usual ones, flags and colors."""
    style = run.style
    shown: dict[str, Any] = {"text": run.text}
    if style.flags:
        shown["flags"] = sorted(style.flags)
    if style.foreground:
        shown["color"] = style.foreground.name
    if style.background:
        shown["background"] = style.background.name
    return shown
