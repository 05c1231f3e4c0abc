"""What the OpenAPI document says about the API as a whole, and about its groups of operations."""

from typing import Final

DESCRIPTION: Final = """\
Runs containers to completion and reports what happens as signed CloudEvents.

A client posts a job and then waits for it (`GET /v1/jobs/{job_id}?wait=30`), or gives a `callback` to which the
events of the job are sent, or both.

**Keys.** If the service requires API keys, send `Authorization: Bearer <key>` with every request. The probes and this
page need none. A key belongs to a namespace and sees nothing of others; one of all namespaces says which by
`namespace`. A key may be read-only.

**Repeating requests.** Choose the `id` of a job yourself, and you can repeat every request whose response was lost:
the job runs once, and the second request gets 409. A redelivery that is repeated may send events once more.

**Waiting.** `wait` is the maximum number of seconds, at most 30, so give your client a longer time-out, such as 60
seconds. A response may come before the time is up although nothing has happened, because too many clients wait or the
service is being restarted: look at `status` or `complete`, and repeat the request.

**Errors** are JSON, whatever the address: `error` is one sentence for people, whose wording may change, and `field` is
the path of the member (`inputs[2].url`) or the name of the query parameter at fault, if there is one. Decide by the
status: after a 5xx or a 429 try again, not before the number of seconds in `Retry-After`; a request that gets another
4xx would fail again.

**Strict requests.** An unknown member or query parameter is an error, and so is a value of another type. A member that
is `null` counts as absent.

**Request ids.** `X-Request-Id` in a response is the id of the request in the log of the service: tell it to the
operator when you ask about a request. You may choose it by sending the header.

**Pages.** Lists take `limit` and, for the next page, `cursor` with the `nextCursor` of the page before. A page may be
short, even empty, and still have a `nextCursor`; the last page has none. A cursor is opaque and valid only with the
same filters.

**Times** are in RFC 3339 and UTC. What is not known yet is left out of a response.
"""

TAGS: Final = [
    {
        "name": "jobs",
        "description": "Run containers: create jobs, wait for them, list them and cancel them. Most clients need no more.",
    },
    {
        "name": "logs",
        "description": "Read what a job has printed, as text or as lines with numbers, and follow it while the job runs.",
    },
    {
        "name": "events",
        "description": "The events of a job with a callback, each with all attempts to deliver it; send them again.",
    },
    {
        "name": "destinations",
        "description": "The origins that events are sent to. Find out why one gets nothing, and pause, resume or reset it.",
    },
    {
        "name": "probes",
        "description": "For load balancers and monitoring. They need no key and accept any host name.",
    },
]
