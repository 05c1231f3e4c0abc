"""Parses query strings strictly: Django's own parser keeps repeated parameters and replaces bytes that are not UTF-8."""

from urllib.parse import unquote_to_bytes

from orchestrator_site.base.http.api_errors import InvalidRequest, path_of

_MAX_PARAMETERS = 100


def parse_query_string(query_string: str) -> dict[str, str]:
    """Return the query parameters. Raise `InvalidRequest` for one that is repeated or cannot be decoded."""
    pairs = query_string.split("&")
    if len(pairs) > _MAX_PARAMETERS:  # empty ones, too: Django counts them where it reads the query itself
        raise InvalidRequest(f"at most {_MAX_PARAMETERS} query parameters are allowed")
    parameters: dict[str, str] = {}
    for pair in filter(None, pairs):
        raw_name, _, raw_value = pair.partition("=")
        name, value = _decode(raw_name), _decode(raw_value)
        if name is None or value is None:
            raise InvalidRequest("must be valid UTF-8 without NUL", field=path_of([raw_name if name is None else name]))
        if name in parameters:
            raise InvalidRequest("is given twice", field=path_of([name]))
        parameters[name] = value
    return parameters


def _decode(raw: str) -> str | None:
    """Return the text; None if it is not UTF-8 or holds a NUL, which PostgreSQL refuses."""
    try:
        text = unquote_to_bytes(raw.replace("+", " ").encode("latin-1")).decode()  # Latin-1: PEP 3333
    except UnicodeError:
        return None
    return None if "\0" in text else text
