"""Keeps generated jobs from asking other hosts for anything: a service that runs would pull, download and deliver."""

from collections.abc import Callable

from orchestrator_site.base.values import http_urls, image_references


def keep_here(body: object) -> None:
    """Replace the URLs and the image of a valid job, so that no other host is asked. Invalid ones stay as they are."""
    match body:
        case dict():
            for name, value in body.items():
                if name == "url" and isinstance(value, str) and _is_accepted(http_urls.parse, value):
                    body[name] = "http://127.0.0.1:9/"
                elif name == "image" and isinstance(value, str) and _is_accepted(image_references.read_reference, value):
                    body[name] = "none.invalid/none"
                else:
                    keep_here(value)
        case list():
            for item in body:
                keep_here(item)


def _is_accepted(parse: Callable[[str], object], text: str) -> bool:
    try:
        parse(text)
    except ValueError:
        return False
    return True
