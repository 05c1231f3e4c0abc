"""The configuration of the service, read once from environment variables (docs/configuration.md)."""

import os
import resource
import secrets
import socket
import ssl
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, urlsplit

from orchestrator_site.base.config.denied_networks import denied_networks
from orchestrator_site.base.config.variables import ConfigurationError, Environment
from orchestrator_site.base.values.http_urls import HttpUrl, InvalidUrl, parse, read_host
from orchestrator_site.base.values.image_patterns import ImagePattern, read_pattern

WEB_THREADS: Final = 16  # of a web process; at most half of them wait in long polls
Network = IPv4Network | IPv6Network
_MAX_EVENT_BYTES: Final = 64 * 1024

_MIN_DISK_LIMIT = 1024**2

_EMBEDDED_EGRESS = (
    "127.0.0.0/8",
    "::1/128",
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "fc00::/7",
    "localhost",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """All settings that operators can change. Durations are in seconds, sizes in bytes."""

    embedded: bool
    state_dir: Path
    port: int
    metrics_port: int
    host: str
    database_url: str
    redis_url: str
    engine: str
    docker_host: str
    job_runtime: str  # empty: the engine's own
    kubeconfig: str  # empty: the service account of the worker's pod
    kube_context: str  # empty: the current one
    kube_namespace: str  # empty: that of the context or of the worker's pod
    kube_pod_template: Path | None
    kube_helper_image: str  # empty: that of the worker's pod
    node_name: str
    node_lost_after: float
    public_url: str
    secret_key: str
    encryption_keys: tuple[str, ...]
    api_key_file: Path | None
    api_auth_required: bool
    job_retention: float
    log_limit: int
    engine_log_limit: int
    disk_limit: int
    sandboxes: int | None  # None: as many as jobs use
    job_network_deny: tuple[Network, ...] | None  # in addition to the node itself; None: nothing
    pull_timeout: float
    transfer_timeout: float
    transfer_limit: int
    worker_threads: int
    web_processes: int
    node_cpus: float | None
    node_memory: int | None
    cpu_overcommit: float
    egress_networks: tuple[Network, ...]
    egress_hosts: frozenset[str]
    egress_proxy: HttpUrl | None
    ca_bundle: Path | None
    deliveries_per_host: int
    destination_rate: int  # events per second
    destination_bytes: int  # … and the bytes of their bodies
    key_rate: int
    key_bytes: int
    namespace_rate: int
    namespace_bytes: int
    images_allow: tuple[ImagePattern, ...]  # empty: all images
    shutdown_grace: float


def load(variables: Mapping[str, str] = os.environ) -> Configuration:
    """Read and check every variable, some of which are secrets: from now on the process leaves no core dump when it crashes.

    Raise `ConfigurationError`, whose message begins with the name of the variable.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    env = Environment(variables)
    database_url, redis_url = env.text("DATABASE_URL"), env.text("REDIS_URL")
    if bool(database_url) != bool(redis_url):
        missing = "REDIS_URL" if database_url else "DATABASE_URL"
        raise ConfigurationError(f"{missing} is not set: DATABASE_URL and REDIS_URL must be set together")
    embedded = not database_url
    if not embedded:
        _split("DATABASE_URL", database_url, ("postgres", "postgresql"), "postgresql://user:password@host:port/name")
        _split("REDIS_URL", redis_url, ("redis", "rediss", "unix"), "redis://host:port/0")
    state_dir = Path(env.text("STATE_DIR") or Path(__file__).resolve().parents[3] / "var").absolute()
    port = env.integer("PORT", 8080, 0, 65535)
    public_url = env.text("PUBLIC_URL") if embedded else env.required("PUBLIC_URL", "the URL at which clients reach the service")
    networks, hosts = _egress(env, embedded)
    return Configuration(
        embedded=embedded,
        state_dir=state_dir,
        port=port,
        metrics_port=env.integer("METRICS_PORT", 9090, 0, 65535),
        host=env.text("HOST", "127.0.0.1" if embedded else "0.0.0.0"),  # noqa: S104 - documented: every address outside the embedded mode
        database_url=database_url,
        redis_url=redis_url,
        engine=env.choice("ENGINE", "docker", ("docker", "kubernetes")),
        docker_host=env.text("DOCKER_HOST"),
        job_runtime=env.name("JOB_RUNTIME"),
        kubeconfig=env.text("KUBECONFIG"),
        kube_context=env.text("KUBE_CONTEXT"),
        kube_namespace=env.name("KUBE_NAMESPACE"),
        kube_pod_template=_readable_file(env, "KUBE_POD_TEMPLATE"),
        kube_helper_image=env.text("KUBE_HELPER_IMAGE"),
        node_name=env.text("NODE_NAME"),
        node_lost_after=env.duration("NODE_LOST_AFTER", "10m"),
        public_url=_public_url(public_url or f"http://127.0.0.1:{port}"),
        secret_key=_secret(env, "SECRET_KEY", embedded, state_dir),
        encryption_keys=_encryption_keys(_secret(env, "ENCRYPTION_KEYS", embedded, state_dir)),
        api_key_file=_readable_file(env, "API_KEY_FILE"),
        api_auth_required=env.choice("API_AUTH", "off" if embedded else "required", ("off", "required")) == "required",
        job_retention=env.duration("JOB_RETENTION", "7d"),
        log_limit=env.size("LOG_LIMIT", "10MiB") or 0,
        engine_log_limit=max(env.size("ENGINE_LOG_LIMIT", "1GiB") or 0, 2 * 1024**2),
        disk_limit=_disk_limit(env),
        sandboxes=env.integer_or_auto("SANDBOXES", 0, 1024),
        job_network_deny=denied_networks(env),
        pull_timeout=env.duration("PULL_TIMEOUT", "30m"),
        transfer_timeout=env.duration("TRANSFER_TIMEOUT", "1h"),
        transfer_limit=env.size("TRANSFER_LIMIT", "10GiB") or 0,
        worker_threads=env.integer("WORKER_THREADS", 512, 1, 1024),
        web_processes=env.integer("WEB_CONCURRENCY", 2, 1, 1024),
        node_cpus=env.number("NODE_CPUS", None, 0.01, 4096),
        node_memory=env.size("NODE_MEMORY", None),
        cpu_overcommit=env.number("CPU_OVERCOMMIT", 4.0, 0.01, 1000) or 4.0,
        egress_networks=networks,
        egress_hosts=hosts,
        egress_proxy=_proxy(env),
        ca_bundle=_certificates(env, "CA_BUNDLE"),
        deliveries_per_host=env.integer("DELIVERIES_PER_HOST", 8, 1, 64),
        destination_rate=env.integer("DESTINATION_RATE", 100, 1, 1_000_000),
        destination_bytes=_at_least_an_event(env, "DESTINATION_BYTES", "1MiB"),
        key_rate=env.integer("KEY_RATE", 500, 1, 1_000_000),
        key_bytes=_at_least_an_event(env, "KEY_BYTES", "4MiB"),
        namespace_rate=env.integer("NAMESPACE_RATE", 1000, 1, 1_000_000),
        namespace_bytes=_at_least_an_event(env, "NAMESPACE_BYTES", "8MiB"),
        images_allow=_image_patterns(env),
        shutdown_grace=env.duration("SHUTDOWN_GRACE", "10s"),
    )


def host_name() -> str:
    """Return the name of this machine, for log lines."""
    return socket.gethostname()


def _readable_file(env: Environment, name: str) -> Path | None:
    path = env.text(name)
    if not path:
        return None
    try:
        with open(path, "rb"):
            return Path(path).absolute()
    except OSError as error:
        raise ConfigurationError(f"{name} cannot be read: {error.strerror}: {path}") from error


def _certificates(env: Environment, name: str) -> Path | None:
    path = _readable_file(env, name)
    if path is None:
        return None
    store = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    with suppress(OSError):  # one broken certificate makes the whole file invalid
        store.load_verify_locations(path)
    if not store.cert_store_stats()["x509"]:
        raise ConfigurationError(f"{name} must contain valid PEM certificates: {path}")
    return path


def _public_url(url: str) -> str:
    example = "https://orchestrator.example.com"
    parts = _split("PUBLIC_URL", url, ("http", "https"), example)
    host = parts.hostname or ""
    if (
        not host or host.startswith(".") or "*" in host or parts.query or parts.fragment
    ):  # Django would read a pattern as several hosts
        raise ConfigurationError(f"PUBLIC_URL must be a URL such as {example}")
    return url.rstrip("/")


def _split(name: str, url: str, schemes: tuple[str, ...], example: str) -> SplitResult:
    """Split a URL. The error does not repeat it: it may contain a password."""
    try:
        parts = urlsplit(url)
        scheme, _ = parts.scheme, parts.port  # a port is checked when it is read
    except ValueError:
        scheme = ""
    if scheme not in schemes:
        raise ConfigurationError(f"{name} must be a URL such as {example}")
    return parts


def _egress(env: Environment, embedded: bool) -> tuple[tuple[Network, ...], frozenset[str]]:
    words = env.words("EGRESS_ALLOW")
    if words is None:
        words = list(_EMBEDDED_EGRESS) if embedded else []
    networks: list[Network] = []
    hosts: set[str] = set()
    for word in words:
        try:
            networks.append(ip_network(word))
        except ValueError as error:
            if "/" in word or ":" in word:
                raise ConfigurationError(f"EGRESS_ALLOW contains an invalid network: {error}") from error
            try:
                hosts.add(read_host(word).rstrip("."))
            except InvalidUrl as invalid:
                raise ConfigurationError("EGRESS_ALLOW must be a list of CIDRs, addresses and host names") from invalid
    return tuple(networks), frozenset(hosts)


def _at_least_an_event(env: Environment, name: str, default: str) -> int:
    """Read a number of bytes per second. Less than an event would hold up every other one for long."""
    size = env.size(name, default) or 0
    if size < _MAX_EVENT_BYTES:
        raise ConfigurationError(f"{name} must be at least 64KiB, the size of an event")
    return size


def _proxy(env: Environment) -> HttpUrl | None:
    """Read EGRESS_PROXY. The error does not repeat it: it may contain a password."""
    text = env.text("EGRESS_PROXY")
    if not text:
        return None
    example = "http://user:password@proxy.example.com:3128"
    try:
        proxy = parse(text)
    except InvalidUrl as error:
        raise ConfigurationError(f"EGRESS_PROXY must be a URL such as {example}: {error}") from error
    if proxy.scheme != "http" or proxy.target != "/":
        raise ConfigurationError(f"EGRESS_PROXY must be a URL such as {example}: http, and without a path")
    return proxy


def _disk_limit(env: Environment) -> int:
    limit = env.size("DISK_LIMIT", "10GiB") or 0
    if limit < _MIN_DISK_LIMIT:
        raise ConfigurationError("DISK_LIMIT must be at least 1MiB: the workspace and the inputs of a job need some of it")
    return limit


def _image_patterns(env: Environment) -> tuple[ImagePattern, ...]:
    words = env.words("IMAGES_ALLOW")
    if words == []:
        raise ConfigurationError("IMAGES_ALLOW must contain at least one pattern")
    patterns = []
    for word in words or []:
        try:
            patterns.append(read_pattern(word))
        except ValueError as error:
            raise ConfigurationError(f"IMAGES_ALLOW contains an invalid pattern: {word!r}: {error}") from error
    return tuple(patterns)


def _secret(env: Environment, name: str, embedded: bool, state_dir: Path) -> str:
    """Return the variable's value; in embedded mode a generated one, kept in the state directory, if it is not set."""
    if not embedded:
        return env.required(name, "it is required if DATABASE_URL is set")
    given = env.text(name)
    if given:
        return given
    path = state_dir / name.lower()
    with suppress(FileNotFoundError):
        return path.read_text().strip()
    state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    new = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    new.touch(mode=0o600)
    new.write_text(urlsafe_b64encode(secrets.token_bytes(32)).decode() + "\n")
    with suppress(FileExistsError):  # another process that starts at the same time was first: its file counts
        os.link(new, path)
    new.unlink()
    return path.read_text().strip()


def _encryption_keys(text: str) -> tuple[str, ...]:
    keys = tuple(word.strip() for word in text.split(",") if word.strip())
    for key in keys:
        try:
            is_valid = len(urlsafe_b64decode(key)) == 32
        except ValueError:
            is_valid = False
        if not is_valid:
            raise ConfigurationError("ENCRYPTION_KEYS must be keys of 32 bytes in URL-safe base64")
    if not keys:
        raise ConfigurationError("ENCRYPTION_KEYS must contain at least one key")
    return keys
