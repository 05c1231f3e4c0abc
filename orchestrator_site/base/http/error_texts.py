"""The error sentences that several parts share: the views, the web server, and the OpenAPI document."""

from typing import Final

INVALID_CHUNKS: Final = "the body is not valid chunked encoding"
BODY_ENDED_EARLY: Final = "the body ended early"
UNSUPPORTED_CODING: Final = "the only supported transfer coding is chunked"
CROSS_SITE: Final = "browsers must not call the API from pages of another site"
READ_ONLY_KEY: Final = "this API key may only read"
OTHER_NAMESPACE: Final = "this API key belongs to another namespace"
SHARED: Final = "all namespaces share destinations: this needs an API key for all namespaces"
WRONG_KEYS: Final = "too many requests with a wrong API key came from this address; try again later"
TOO_MANY_JOBS: Final = "too many jobs were posted with this API key or from this address; try again later"
INTERNAL_ERROR: Final = "internal error; the service's log has the details"
BY_STATUS: Final = {
    400: "the request is malformed, or its host is not allowed",
    401: "an API key is required: send Authorization: Bearer <key>",
    403: "this request is not allowed",
    404: "not found",
    405: "method not allowed",
    413: "the body is larger than 1 MiB",
    415: "the body must be application/json in UTF-8",
    500: INTERNAL_ERROR,
    503: "the database is unavailable; try again",
}
