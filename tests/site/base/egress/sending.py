"""Requests of the tests, with their usual time-outs."""

from collections.abc import Iterator
from typing import Any

from orchestrator_site.base.egress import http_client

SECRET = "s3cr3t"
TIMES: dict[str, Any] = {"connect_timeout": 5, "read_timeout": 10}


def get(url: str, **options: Any) -> tuple[int, bytes]:
    with http_client.open(options.pop("method", "GET"), url, **(TIMES | options)) as response:
        return response.status, b"".join(http_client.chunks(response))


class Zeros:
    """A body that is generated while it is sent."""

    def __init__(self, size: int) -> None:
        self._size = size

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[bytes]:
        for start in range(0, self._size, 65536):
            yield b"0" * min(65536, self._size - start)
