"""The examples of the OpenAPI document for destinations."""

from typing import Final

_SUMMARY: Final = {
    "id": 7,
    "origin": "https://hooks.example.com:443",
    "paused": False,
    "breaker": "closed",
    "failures": 0,
    "slow": False,
    "atOnce": 10,
}
DESTINATIONS: Final = {"destinations": [_SUMMARY], "nextCursor": "7"}
HEALTHY: Final = {**_SUMMARY, "underWay": 2, "waiting": 0}
SUSPENDED: Final = {
    **_SUMMARY,
    "breaker": "open",
    "failures": 5,
    "openUntil": "2026-01-31T12:00:40.000Z",
    "atOnce": 1,
    "underWay": 0,
    "waiting": 131,
}
PAUSED: Final = {**HEALTHY, "paused": True, "underWay": 0, "waiting": 12}
REDELIVERING: Final = {
    **HEALTHY,
    "redelivering": {"since": "2026-01-31T00:00:00.000Z", "until": "2026-01-31T12:00:00.000Z"},
}
