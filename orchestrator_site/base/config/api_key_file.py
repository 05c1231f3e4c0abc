"""The file of the API keys.

Keys are the lines of `API_KEY_FILE`; blank lines and lines starting with `#` are ignored. The file is read again when it
changes, so that keys can be added and revoked while the service runs. Only digests are kept in memory.
"""

import hashlib
import logging
from functools import lru_cache
from pathlib import Path

logger = logging.getLogger(__name__)


def read_keys(text: bytes) -> frozenset[bytes]:
    """Return the digests of the keys in the content of a key file."""
    lines = (line.strip() for line in text.splitlines())
    return frozenset(digest_of(line) for line in lines if line and not line.startswith(b"#"))


def known_digests(path: Path) -> frozenset[bytes]:
    """Return the digests of the keys in the file; none if it cannot be read, since removing it revokes its keys."""
    try:
        status = path.stat()
        return _digests_of(path, (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns))
    except OSError as error:
        logger.error("API_KEY_FILE cannot be read: %s", error.strerror)
        return frozenset()


@lru_cache(maxsize=1)
def _digests_of(path: Path, version: tuple[int, ...]) -> frozenset[bytes]:  # noqa: ARG001 - the file is read once a version
    return read_keys(path.read_bytes())


def digest_of(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
