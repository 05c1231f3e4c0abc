"""Requests of the tests, with their usual time-outs."""

import io
from typing import Any

from orchestrator_site.base.egress import http_client

SECRET = "s3cr3t"
TIMES: dict[str, Any] = {"connect_timeout": 5, "read_timeout": 10}


def get(url: str, **options: Any) -> tuple[int, bytes]:
    with http_client.open(options.pop("method", "GET"), url, **(TIMES | options)) as response:
        return response.status_code, b"".join(http_client.chunks(response))


class Zeros(io.RawIOBase):
    """A body that is generated while it is read."""

    def __init__(self, size: int) -> None:
        self.left = self.size = size
        self.largest_read = 0

    def __len__(self) -> int:
        return self.size

    def read(self, size: int = -1) -> bytes:
        self.largest_read = max(self.largest_read, size)
        data = b"0" * min(size, self.left)
        self.left -= len(data)
        return data
