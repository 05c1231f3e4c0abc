"""Targets of requests: paths and queries of the API, and tricks in them."""

from collections.abc import Sequence
from random import Random
from typing import Final
from urllib.parse import quote

JOB_ID: Final = "a"  # of a job with a log, which the attacked service has

_EVENT: Final = f"/v1/jobs/{JOB_ID}/events/00000000-0000-0000-0000-000000000000/redeliver"
PATHS: Final = (
    *("/v1/jobs",) * 6,
    *(f"/v1/jobs/{JOB_ID}", f"/v1/jobs/{JOB_ID}/logs", f"/v1/jobs/{JOB_ID}/events") * 3,
    *("/v1/destinations", "/v1/destinations/1", f"/v1/destinations/{'9' * 20}", "/v1/destinations/1/pause", _EVENT),
    *("/v1/openapi.json", "/v1/docs", "/v1", "/v1/", "/", "/livez", "/readyz", "/metrics", "/favicon.ico"),
    *("/admin/", "/admin/login/", "/admin/jobs/job/", "/admin/logout/", "/static/unfold/css/styles.css", "/static/../manage.py"),
)
POSTED: Final = (
    *("/v1/jobs",) * 8,
    *(f"/v1/jobs/{JOB_ID}/events/redeliver", _EVENT, "/v1/destinations/1/pause", "/v1/destinations/1/redeliver", "/admin/login/"),
)
TRICKS: Final = (
    *("%00", "%2f", "%2F..%2f..", "//", "/../", "/./", "/..;/", ";a=b", "%", "%zz", "%ff", "%c0%af", "%u0000"),
    *("%0d%0aX:%20y", "%ed%a0%80", "\\", "..%5c", "~", "%e2%80%ae", "#", "?", "??", ":", "@", "|", "<script>", "é"),
    *("\xff", "\x7f", "a" * 129, "a" * 3900, "%25" * 50),
)
# The query parameters of an address, by the end of its path.
NAMES: Final = {
    "/v1/jobs": ("limit", "cursor", "status", "image", "node", "createdAfter", "createdBefore", "meta.a", "meta."),
    "/logs": ("after", "limit", "stream", "tail", "wait"),
    "/events": ("limit", "cursor", "state"),
    "/destinations": ("limit", "cursor"),
    f"/{JOB_ID}": ("wait",),
}
OTHER_NAMES: Final = (
    *("namespace", "unknown", "limit%00", "%ff", "a[]", "__proto__", "LIMIT", "meta", "m%65ta.a", "+limit", ""),
    *("a" * 500,),
)
NUMBERS: Final = (
    *("0", "1", "-1", "+1", "1e3", "1.0", "0x1", "NaN", "inf", "1%00", "%EF%BC%91", "0.001", "-0.0", "31", "1_0"),
    *("%201", "00001", "1e-400", "10000", "0.0000000001", "9007199254740992", "9007199254740993", "", "9" * 19),
    *("9" * 400, "9" * 3000),
)
WAITS: Final = ("0", "0.001", "-0.001", "30.001", "NaN", "inf", "1e-9", "0,001", "9" * 400)  # none of which takes long
TIMES: Final = (
    *("2026-01-01T00:00:00Z", "2026-13-01T00:00:00Z", "0001-01-01T00:00:00%2B23:59"),
    *("9999-12-31T23:59:59.999999-23:59", "2026-01-01", "99999-01-01T00:00:00Z", "2026-01-01T00:00:60Z"),
    *("2026-01-01T24:00:00Z", "1970-01-01T00:00:00.0000000001Z", "-2026-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
    *("1969-12-31T23:59:59.999Z", "2026-01-01T00:00:00%2B24:00", "2026-W01-1T00:00:00Z", "2026-02-29T00:00:00Z"),
)
CURSORS: Final = (
    *("A" * 22, "_" * 22, "A" * 21 + "B", "A" * 21 + "Q", "A" * 23, "/" * 22, "A" * 21 + "\xe9", "9" * 18, "AAAA="),
    *("AAAA====", "1", "0", "-1"),
)
TEXTS: Final = (
    *("%00", "%ff", "%", "é", "running", "stdout", "pending", "%0a", "'--", "{}", "null", "%ed%a0%80", "a%2Cb", ""),
    *("\xff", "a" * 2000),
)


def path(random: Random, method: str, *, is_hostile: bool) -> str:
    """Return a path for a request with this method; a hostile one has a trick in it."""
    if not is_hostile:
        return random.choice(POSTED if method == "POST" else PATHS)
    path = random.choice(PATHS)
    match random.randrange(6):
        case 0 | 1:
            at = random.randrange(len(path) + 1)
            return path[:at] + random.choice(TRICKS) + path[at:]
        case 2:
            return random.choice(
                ("*", "x:1", f"http://127.0.0.1{path}", f"http://[{path}", f"https://x:y@z{path}", "ftp://x/", f"//x{path}")
            )
        case 3:
            return path.replace("/", random.choice(("//", "/./", "%2f", "/a/../")))
        case 4:
            return "".join(quote(character, safe="") if random.random() < 0.3 else character for character in path)
    return f"/v1/jobs/{random.choice(TRICKS)}"


def query(random: Random, path: str) -> str:
    """Return a query with its question mark, mostly none."""
    if random.random() < 0.05:
        return random.choice(
            ("?", "?&&", "?=", "?%", "?" + "&" * 3900, "?" + "a=1&" * 900, "?" + "&".join(f"a{n}=1" for n in range(101)))
        )
    known = next((names for end, names in NAMES.items() if path.endswith(end)), ())
    count = random.choice((0, 0, 0, 1, 1, 2, 3)) if known else random.choice((0,) * 9 + (1, 30))
    pairs = [_pair(random, known if random.random() < 0.9 else ()) for _ in range(count)]
    return ("?" if pairs else "") + random.choice(("&",) * 19 + (";",)).join(pairs)[:3900]


def _pair(random: Random, known: Sequence[str]) -> str:
    name = random.choice(known or OTHER_NAMES)
    values = {"cursor": CURSORS, "wait": WAITS, "createdAfter": TIMES, "createdBefore": TIMES}.get(
        name, NUMBERS if known else TEXTS
    )
    return f"{name}={random.choice(values if random.random() < 0.85 else TEXTS)}"
