"""Where the service is, and the key for it: from the environment."""

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3

from orchestrator_site.client.errors import ClientError

LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")
_DEFAULT_PORT: Final = "8080"
_SAFE_KEY: Final = re.compile(r"[\x21-\x7e]+")


def address_of(environment: Mapping[str, str]) -> str:
    """Return the URL of the service without a slash at its end. Raise `ClientError` if it is invalid."""
    name = next((name for name in ("ORCHESTRATOR_URL", "PUBLIC_URL") if environment.get(name)), None)
    if name is None:
        port = environment.get("PORT") or _DEFAULT_PORT
        if not re.fullmatch(r"[0-9]{1,5}", port, re.ASCII) or not 0 < int(port) < 2**16:
            raise ClientError("PORT must be a whole number from 1 to 65535")
        return f"http://127.0.0.1:{port}"
    url = environment[name].strip().rstrip("/")
    invalid = f"{name} must be a URL such as https://jobs.example.com"
    if not url.isascii() or not url.isprintable() or " " in url:
        raise ClientError(invalid)
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
        (parts.hostname or "").encode("idna")  # raises UnicodeError, a ValueError, for names that no host can have
    except ValueError as error:
        raise ClientError(invalid) from error
    if not valid or parts.query or parts.fragment or parts.username is not None:
        raise ClientError(invalid)
    return url


def key_of(environment: Mapping[str, str]) -> str | None:
    """Return the API key, None if there is none. Raise `ClientError`, without the key, if it cannot be sent."""
    key = environment.get("ORCHESTRATOR_API_KEY", "").strip()
    if key and not _SAFE_KEY.fullmatch(key):
        raise ClientError("ORCHESTRATOR_API_KEY has a character that no API key has")
    return key or None


def connection_pool(url: str) -> urllib3.PoolManager:
    """Return a pool for one connection, through the proxy that the environment names for this host, if it names one.

    Raise `ClientError`, without the proxy's password, if its URL is invalid.
    """
    parts = urlsplit(url)
    proxy = getproxies().get(parts.scheme)
    if not proxy or parts.hostname in LOOPBACK or proxy_bypass(parts.netloc):
        return urllib3.PoolManager(maxsize=1)
    try:
        proxy_url = urllib3.util.parse_url(proxy if "://" in proxy else f"http://{proxy}")
        headers = urllib3.util.make_headers(proxy_basic_auth=unquote(proxy_url.auth)) if proxy_url.auth else None
        return urllib3.ProxyManager(proxy_url._replace(auth=None).url, maxsize=1, proxy_headers=headers)
    except ValueError as error:
        name = f"{parts.scheme.upper()}_PROXY"
        raise ClientError(f"{name} must be the URL of an HTTP proxy, such as http://proxy.example.com:3128") from error
