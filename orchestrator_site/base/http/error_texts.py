"""The error sentences that several parts give: the views, the web server, and the OpenAPI document."""

from typing import Final

INVALID_CHUNKS: Final = "the body is not valid chunked encoding"
BODY_ENDED_EARLY: Final = "the body ended early"
BY_STATUS: Final = {
    400: "the request is malformed or is for another host",
    401: "an API key is required: send Authorization: Bearer <key>",
    403: "this request is not allowed",
    404: "not found",
    405: "method not allowed",
    413: "the body is larger than 1 MiB",
    415: "the body must be application/json in UTF-8",
    500: "internal error; the log of the service has the details",
    503: "the database is unavailable; try again",
}
