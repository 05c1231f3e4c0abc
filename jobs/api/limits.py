"""The limits of the API: what a request may hold, and how far one answer goes. The OpenAPI document shows them."""

from typing import Final

# a job
ID_LENGTH: Final = 128
ID_PATTERN: Final = r"[A-Za-z0-9][A-Za-z0-9._-]*"
IMAGE_LENGTH: Final = 512
CPU: Final = (0.01, 64)  # cores
CPU_DEFAULT: Final = 1
MEMORY: Final = (6, 65536)  # MiB
MEMORY_DEFAULT: Final = 512
TIMEOUT: Final = (1, 86400)  # seconds
TIMEOUT_DEFAULT: Final = 1800
ENVIRONMENT_ENTRIES: Final = 256
META_ENTRIES: Final = 32
META_KEY_LENGTH: Final = 64
META_VALUE_LENGTH: Final = 256
META_BYTES: Final = 8 * 1024  # as compact JSON in UTF-8
WORKSPACE_DEFAULT: Final = "/workspace"

# inputs, outputs and callback
TRANSFERS: Final = 64  # of either kind
PATH_BYTES: Final = 1024  # in UTF-8; the workspace's too
MODE_DEFAULT: Final = "0644"
MODE_PATTERN: Final = r"([0-7]{1,4}|0[0-7]{4})"
SHA256_PATTERN: Final = r"[0-9A-Fa-f]{64}"
URL_LENGTH: Final = 2048
KEY_LENGTH: Final = 1024
KEYS_MAX: Final = 2  # of one callback: the new one and the old one
CALLBACK_HEADERS_MAX: Final = 32
CALLBACK_HEADERS_BYTES: Final = 8 * 1024  # names and values: what web servers accept by default
SECRET_BYTES: Final = (24, 64)  # of what a `whsec_` key encodes: Standard Webhooks

# answers
WAIT_SECONDS: Final = 30
ROWS_READ: Final = 5000  # for one page of jobs
LOG_LINES_DEFAULT: Final = 1000
LOG_LINES_MAX: Final = 10_000
LOG_PAGE_LENGTH: Final = 2 * 1024**2  # characters of text in one JSON answer
LOG_EVENT_LENGTH: Final = 64 * 1024  # in one event of a stream: many clients may be slow at the same time
