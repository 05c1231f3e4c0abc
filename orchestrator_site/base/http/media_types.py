"""Reads media types, which `Content-Type` and `Accept` name, by the rules of HTTP.

Django reads both with the parser of e-mail, which any client could use against the service: an encoding that a parameter names
(`a*=name''%41`) is looked up, and one that is unknown was answered 500; each name stays in Python's cache of codecs for ever; and
a header of 8 KB took a fifth of a second.
"""

import re
from operator import attrgetter
from typing import Any, Final

from django.core.handlers.wsgi import WSGIRequest
from django.http.request import MediaType
from django.utils.functional import cached_property

_MAX_LENGTH: Final = 1000  # of one header; browsers send some 200 characters
_WORD: Final = r"[!#$&+.^_`|~0-9A-Za-z-]++"  # without *, ' and %, which are of mail's extended parameters
_TYPE: Final = re.compile(rf"[ \t]*+((?:{_WORD}|\*)/(?:{_WORD}|\*))[ \t]*+")
_PARAMETER: Final = re.compile(rf""";[ \t]*+(?:({_WORD})=(?:({_WORD})|"([^"\\]*+)"))?[ \t]*+""")
_UPLOAD: Final = "multipart/form-data"


def parse_media_type(header: str) -> tuple[str, dict[str, str]]:
    """Return type and parameters, their names and the type in lowercase; `("", {})` if the header is invalid or too long."""
    start = _TYPE.match(header) if len(header) <= _MAX_LENGTH else None
    if start is None:
        return "", {}
    parameters: dict[str, str] = {}
    end = start.end()
    while end < len(header):
        found = _PARAMETER.match(header, end)
        if found is None:
            return "", {}
        name, token, quoted = found.groups()
        if name is not None:
            parameters[name.lower()] = quoted if token is None else token
        end = found.end()
    return start[1].lower(), parameters


class Request(WSGIRequest):
    """A request of the WSGI application whose media types are read by the rules of HTTP.

    Bodies are JSON or the forms of the admin, in UTF-8. Nothing here takes the upload of a file (`multipart/form-data`), whose
    parts Django would read with the parser of e-mail, too: such a body counts as one of no type.
    """

    def _set_content_type_params(self, meta: dict[str, Any]) -> None:
        self.content_type, self.content_params = parse_media_type(meta.get("CONTENT_TYPE", ""))
        if self.content_type == _UPLOAD:
            self.content_type = ""

    @cached_property
    def accepted_types(self) -> list[MediaType]:
        """Return the types of `Accept`, best first, as Django does; without invalid ones, and any type if it is too long."""
        header = self.META.get("HTTP_ACCEPT", "*/*")
        texts = header.split(",") if len(header) <= _MAX_LENGTH else ["*/*"]
        types = [MediaType(text) for text in texts if parse_media_type(text)[0]]
        return sorted((type_ for type_ in types if type_.quality), key=attrgetter("quality", "specificity"), reverse=True)
