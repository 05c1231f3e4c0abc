"""The environment variables: valid and invalid values, and that each is documented."""

import math
import re
import resource
import stat
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import certifi
import pytest
from environment import without_service
from hypothesis import given
from hypothesis import strategies as st

from orchestrator_site.base.config.configuration import Configuration, load
from orchestrator_site.base.config.variables import ConfigurationError
from orchestrator_site.base.egress.connection_pool import MAX_IDLE_CONNECTIONS
from orchestrator_site.base.values.http_urls import parse
from orchestrator_site.base.values.image_patterns import read_pattern
from orchestrator_site.base.values.quantities import parse_duration, parse_size
from tests.helpers.certificates import certificate

ROOT = Path(__file__).resolve().parents[4]
LINK_LOCAL = (ip_network("169.254.0.0/16"), ip_network("fe80::/10"))
KEY = urlsafe_b64encode(bytes(32)).decode()
PRODUCTION = {
    "DATABASE_URL": "postgresql://user:password@db/name",
    "REDIS_URL": "redis://redis:6379/0",
    "PUBLIC_URL": "https://orchestrator.example.com",
    "SECRET_KEY": "s" * 50,
    "ENCRYPTION_KEYS": KEY,
}
SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
BYTES = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


def embedded(tmp_path: Path, **variables: str) -> Configuration:
    return load({"STATE_DIR": str(tmp_path), **variables})


def production(**variables: str) -> Configuration:
    return load(PRODUCTION | variables)


def test_a_process_that_knows_secrets_leaves_no_core_dump(tmp_path: Path) -> None:
    # Given a process that would leave one, as in many containers
    before = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (before[1], before[1]))
    try:
        # When it has read the configuration, I expect it to leave none
        embedded(tmp_path)
        assert resource.getrlimit(resource.RLIMIT_CORE) == (0, before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, before)


class TestDurationsAndSizes:
    @given(number=st.integers(0, 10**6), unit=st.sampled_from(list(SECONDS)))
    def test_durations(self, number: int, unit: str) -> None:
        assert math.isclose(parse_duration(f"{number}{unit}"), number * SECONDS[unit])

    @given(number=st.integers(0, 10**6), unit=st.sampled_from(list(BYTES)))
    def test_sizes(self, number: int, unit: str) -> None:
        assert parse_size(f"{number}{unit}") == number * BYTES[unit]

    @given(text=st.text(max_size=8))
    def test_other_text_is_refused(self, text: str) -> None:
        if not re.fullmatch(r"\d+(\.\d+)?(ms|s|m|h|d)", text.strip()):
            with pytest.raises(ValueError, match="must be a duration"):
                parse_duration(text)
        if not re.fullmatch(r"\d+([KMGT]i)?B", text.strip()):
            with pytest.raises(ValueError, match="must be a size"):
                parse_size(text)


class TestDefaults:
    def test_embedded(self, tmp_path: Path) -> None:
        configuration = embedded(tmp_path)
        assert configuration.embedded
        assert (configuration.host, configuration.port, configuration.metrics_port) == ("127.0.0.1", 8080, 9090)
        assert configuration.public_url == "http://127.0.0.1:8080"
        assert not configuration.api_auth_required
        assert configuration.job_retention == 7 * 86400
        assert configuration.node_lost_after == 600
        assert (configuration.log_limit, configuration.engine_log_limit) == (10 * 2**20, 2**30)
        assert (configuration.pull_timeout, configuration.transfer_timeout) == (1800, 3600)
        assert configuration.transfer_limit == configuration.disk_limit == 10 * 2**30
        assert (configuration.worker_threads, configuration.cpu_overcommit) == (512, 4)
        assert (configuration.node_cpus, configuration.node_memory) == (None, None)
        assert configuration.shutdown_grace == 10
        assert configuration.job_runtime == ""
        assert configuration.ca_bundle is None
        assert configuration.job_network_deny == LINK_LOCAL
        assert configuration.images_allow == ()
        assert configuration.deliveries_per_host == MAX_IDLE_CONNECTIONS == 8
        assert ip_network("127.0.0.0/8") in configuration.egress_networks
        assert "localhost" in configuration.egress_hosts

    def test_production(self) -> None:
        configuration = production()
        assert not configuration.embedded
        assert configuration.host == "0.0.0.0"
        assert configuration.api_auth_required
        assert (configuration.egress_networks, configuration.egress_hosts) == ((), frozenset())

    def test_an_empty_value_counts_as_not_set(self, tmp_path: Path) -> None:
        assert embedded(tmp_path, PORT="", JOB_RETENTION=" ").port == 8080

    def test_the_public_url_follows_the_port(self, tmp_path: Path) -> None:
        assert embedded(tmp_path, PORT="9000").public_url == "http://127.0.0.1:9000"


class TestGenerated:
    def test_secrets_are_generated_once_and_private(self, tmp_path: Path) -> None:
        # Given an embedded service that was started once
        state = tmp_path / "var"
        first = embedded(state)
        # When it starts again, I expect the same secrets, in files that only their owner can read
        assert embedded(state) == first
        for name in ("secret_key", "encryption_keys"):
            assert stat.S_IMODE((state / name).stat().st_mode) == 0o600
        assert {file.name for file in state.iterdir()} == {"secret_key", "encryption_keys"}

    def test_each_installation_has_its_own_secrets(self, tmp_path: Path) -> None:
        assert embedded(tmp_path / "a").secret_key != embedded(tmp_path / "b").secret_key

    def test_a_secret_from_the_environment_is_used(self, tmp_path: Path) -> None:
        assert embedded(tmp_path, SECRET_KEY="mine").secret_key == "mine"


VALID: list[tuple[str, str, str, Any]] = [
    ("PORT", "1", "port", 1),
    ("METRICS_PORT", "65535", "metrics_port", 65535),
    ("HOST", "::1", "host", "::1"),
    ("ENGINE", "docker", "engine", "docker"),
    ("ENGINE", "kubernetes", "engine", "kubernetes"),
    ("KUBECONFIG", "/a/config:/b/config", "kubeconfig", "/a/config:/b/config"),
    ("KUBE_CONTEXT", "admin@cluster", "kube_context", "admin@cluster"),
    ("KUBE_NAMESPACE", "batch-jobs", "kube_namespace", "batch-jobs"),
    ("KUBE_POD_TEMPLATE", __file__, "kube_pod_template", Path(__file__)),
    ("KUBE_HELPER_IMAGE", "r.example/helper:1", "kube_helper_image", "r.example/helper:1"),
    ("DOCKER_HOST", "tcp://h:2376", "docker_host", "tcp://h:2376"),
    ("JOB_RUNTIME", "kata-qemu_2.0", "job_runtime", "kata-qemu_2.0"),
    ("DISK_LIMIT", "1MiB", "disk_limit", 2**20),
    ("DISK_LIMIT", "1TiB", "disk_limit", 2**40),
    ("NODE_NAME", "n", "node_name", "n"),
    ("NODE_LOST_AFTER", "90s", "node_lost_after", 90),
    ("PUBLIC_URL", "https://o.example/", "public_url", "https://o.example"),
    ("API_KEY_FILE", __file__, "api_key_file", Path(__file__)),
    ("API_AUTH", "off", "api_auth_required", False),
    ("JOB_RETENTION", "1.5h", "job_retention", 5400),
    ("LOG_LIMIT", "0B", "log_limit", 0),
    ("LOG_LIMIT", "512KiB", "log_limit", 512 * 1024),
    ("ENGINE_LOG_LIMIT", "10MiB", "engine_log_limit", 10 * 2**20),
    ("ENGINE_LOG_LIMIT", "2MiB", "engine_log_limit", 2 * 2**20),
    ("ENGINE_LOG_LIMIT", "2097151B", "engine_log_limit", 2 * 2**20),
    ("ENGINE_LOG_LIMIT", "0B", "engine_log_limit", 2 * 2**20),
    ("PULL_TIMEOUT", "5m", "pull_timeout", 300),
    ("TRANSFER_TIMEOUT", "2h", "transfer_timeout", 7200),
    ("TRANSFER_LIMIT", "1TiB", "transfer_limit", 2**40),
    ("WORKER_THREADS", "1", "worker_threads", 1),
    ("NODE_CPUS", "1.5", "node_cpus", 1.5),
    ("NODE_MEMORY", "2GiB", "node_memory", 2**31),
    ("CPU_OVERCOMMIT", "1", "cpu_overcommit", 1),
    ("EGRESS_ALLOW", "10.0.0.0/8, Hooks.Example.com.", "egress_hosts", frozenset({"hooks.example.com"})),
    ("EGRESS_ALLOW", "BÜCHER.example,a_b", "egress_hosts", frozenset({"xn--bcher-kva.example", "a_b"})),
    ("EGRESS_ALLOW", "10.1.2.3,fd00::/8", "egress_networks", (ip_network("10.1.2.3"), ip_network("fd00::/8"))),
    ("EGRESS_PROXY", "http://u:p@proxy:3128/", "egress_proxy", parse("http://u:p@proxy:3128")),
    ("JOB_NETWORK_DENY", "none", "job_network_deny", None),
    ("JOB_NETWORK_DENY", "10.1.2.3, fd00::/8", "job_network_deny", (*LINK_LOCAL, ip_network("10.1.2.3"), ip_network("fd00::/8"))),
    ("CA_BUNDLE", certifi.where(), "ca_bundle", Path(certifi.where())),
    ("DELIVERIES_PER_HOST", "1", "deliveries_per_host", 1),
    ("DELIVERIES_PER_HOST", "64", "deliveries_per_host", 64),
    ("DESTINATION_RATE", "1", "destination_rate", 1),
    ("DESTINATION_BYTES", "64KiB", "destination_bytes", 65536),
    ("KEY_RATE", "1", "key_rate", 1),
    ("KEY_BYTES", "64KiB", "key_bytes", 65536),
    ("NAMESPACE_RATE", "1000000", "namespace_rate", 1_000_000),
    ("NAMESPACE_BYTES", "1GiB", "namespace_bytes", 2**30),
    ("IMAGES_ALLOW", "python:3.*, a.example/t/*", "images_allow", (read_pattern("python:3.*"), read_pattern("a.example/t/*"))),
    ("SHUTDOWN_GRACE", "500ms", "shutdown_grace", 0.5),
    ("ENCRYPTION_KEYS", f"{KEY}, {KEY}", "encryption_keys", (KEY, KEY)),
    ("STATE_DIR", "/state", "state_dir", Path("/state")),
]

INVALID = [
    ("DATABASE_URL", "mysql://h/n"),
    ("DATABASE_URL", "postgresql://user:pass[word@h/n"),
    ("DATABASE_URL", "postgresql://h:5432x/n"),
    ("REDIS_URL", "http://h"),
    ("PORT", "65536"),
    ("PORT", "-1"),
    ("PORT", "80a"),
    ("PORT", "８０"),
    ("METRICS_PORT", "x"),
    ("ENGINE", "podman"),
    ("KUBE_NAMESPACE", "a/b"),
    ("KUBE_POD_TEMPLATE", "/nowhere/template.yaml"),
    ("JOB_RUNTIME", "/usr/bin/crun"),
    ("JOB_RUNTIME", "crun, runc"),
    ("DISK_LIMIT", "0B"),
    ("DISK_LIMIT", "1048575B"),
    ("DISK_LIMIT", "none"),
    ("NODE_LOST_AFTER", "10"),
    ("NODE_LOST_AFTER", "-10s"),
    ("PUBLIC_URL", "orchestrator.example.com"),
    ("PUBLIC_URL", "ftp://h"),
    ("PUBLIC_URL", "https://"),
    ("PUBLIC_URL", "https://[h"),
    ("PUBLIC_URL", "https://h/?a=b"),
    ("PUBLIC_URL", "https://*"),
    ("PUBLIC_URL", "https://.example.com"),
    ("ENCRYPTION_KEYS", "short"),
    ("ENCRYPTION_KEYS", ","),
    ("ENCRYPTION_KEYS", "ä" * 43),
    ("API_KEY_FILE", "/nonexistent/keys"),
    ("API_AUTH", "on"),
    ("JOB_RETENTION", "1w"),
    ("LOG_LIMIT", "10MB"),
    ("ENGINE_LOG_LIMIT", "1"),
    ("PULL_TIMEOUT", "soon"),
    ("TRANSFER_TIMEOUT", "1 h"),
    ("TRANSFER_LIMIT", "1.5GiB"),
    ("WORKER_THREADS", "0"),
    ("WEB_CONCURRENCY", "two"),
    ("WEB_CONCURRENCY", "0"),
    ("NODE_CPUS", "0"),
    ("NODE_CPUS", "nan"),
    ("NODE_MEMORY", "2"),
    ("CPU_OVERCOMMIT", "-1"),
    ("EGRESS_ALLOW", "10.0.0.0/33"),
    ("EGRESS_ALLOW", "*.example.com"),
    ("EGRESS_ALLOW", "☕.example"),
    ("EGRESS_ALLOW", "10.0.0.1/8"),
    ("EGRESS_PROXY", "proxy:3128"),
    ("EGRESS_PROXY", "https://user:pass@proxy:3128"),
    ("EGRESS_PROXY", "http://user:pass@proxy:3128/path"),
    ("EGRESS_PROXY", "http://user:pass@:3128"),
    ("JOB_NETWORK_DENY", ","),
    ("JOB_NETWORK_DENY", "10.0.0.0/8,none"),
    ("JOB_NETWORK_DENY", "10.0.0.1/8"),
    ("JOB_NETWORK_DENY", "10.0.0.0/8;172.16.0.0/12"),
    ("JOB_NETWORK_DENY", "internal.example"),
    ("JOB_NETWORK_DENY", "!10.0.0.0/8"),
    ("JOB_NETWORK_DENY", "::ffff:10.0.0.0/104"),
    ("JOB_NETWORK_DENY", "fe80::%eth0/64"),
    ("JOB_NETWORK_DENY", "fe80::1%} flush ruleset {/128"),
    ("CA_BUNDLE", "/nonexistent/ca.pem"),
    ("CA_BUNDLE", "/"),
    ("CA_BUNDLE", __file__),
    ("CA_BUNDLE", "/dev/null"),
    ("DELIVERIES_PER_HOST", "0"),
    ("DESTINATION_RATE", "0"),
    ("DESTINATION_BYTES", "65535B"),
    ("KEY_RATE", "0"),
    ("KEY_BYTES", "65535B"),
    ("NAMESPACE_RATE", "unlimited"),
    ("NAMESPACE_BYTES", "0B"),
    ("DELIVERIES_PER_HOST", "65"),
    ("DELIVERIES_PER_HOST", "1.5"),
    ("IMAGES_ALLOW", ","),
    ("IMAGES_ALLOW", "python:3.*,Upper"),
    ("IMAGES_ALLOW", "python:a:b"),
    ("SHUTDOWN_GRACE", "10sec"),
]


class TestVariables:
    @pytest.mark.parametrize(("name", "text", "attribute", "value"), VALID)
    def test_valid_values(self, name: str, text: str, attribute: str, value: Any) -> None:
        assert getattr(production(**{name: text}), attribute) == value

    @pytest.mark.parametrize(("name", "text"), INVALID)
    def test_invalid_values_raise_an_error_with_the_name(self, name: str, text: str) -> None:
        with pytest.raises(ConfigurationError, match=f"^{name} "):
            production(**{name: text})

    def test_what_jobs_may_not_reach_is_explained(self) -> None:
        """An operator relies on this value, so the error says which network is wrong and why."""
        for value, words in {
            "10.0.0.1/8": "10.0.0.1/8 has host bits set",
            "10.0.0.0/8, none": "must be either none or a list of networks",
            "::ffff:10.0.0.0/104": "an IPv4 network in IPv6 notation, .*'::ffff:10.0.0.0/104'",
            "fe80::%eth0/64": "a network with a zone, .*'fe80::%eth0/64'",
        }.items():
            with pytest.raises(ConfigurationError, match=f"^JOB_NETWORK_DENY .*{words}"):
                production(JOB_NETWORK_DENY=value)

    def test_a_bundle_must_have_complete_certificates(self, tmp_path: Path) -> None:
        # Given a file with a certificate and its key
        bundle = certificate(tmp_path, "authority.test")
        text = bundle.read_text()
        assert production(CA_BUNDLE=str(bundle)).ca_bundle == bundle

        # When it contains the key alone, or a truncated certificate after a complete one, I expect it to be refused
        key, certificate_alone = text.split("-----BEGIN CERTIFICATE-----")
        for wrong in (key, text + "-----BEGIN CERTIFICATE-----" + certificate_alone[:100]):
            bundle.write_text(wrong)
            with pytest.raises(
                ConfigurationError, match=r"^CA_BUNDLE must contain valid PEM certificates: .*authority\.test\.pem$"
            ):
                production(CA_BUNDLE=str(bundle))

    @pytest.mark.parametrize("name", PRODUCTION)
    def test_production_requires_these_variables(self, name: str) -> None:
        with pytest.raises(ConfigurationError, match=f"^{name} is not set"):
            load({key: value for key, value in PRODUCTION.items() if key != name})

    @pytest.mark.parametrize("name", ["SECRET_KEY", "ENCRYPTION_KEYS", "DATABASE_URL"])
    def test_a_secret_is_not_repeated(self, name: str) -> None:
        with pytest.raises(ConfigurationError) as refused:
            production(**{name: "canary"} | ({} if name != "SECRET_KEY" else {"PORT": "x"}))
        assert "canary" not in str(refused.value)


class _Asked(dict[str, str]):
    """Variables that record which of them were read."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        super().__init__(variables)
        self.names: set[str] = set()

    def get(self, name: str, default: Any = None) -> Any:
        self.names.add(name)
        return super().get(name, default)


def variables_read() -> Iterator[str]:
    asked = _Asked(PRODUCTION)
    load(asked)
    yield from asked.names
    for package in ("orchestrator_site", "jobs", "callbacks"):
        for source in (ROOT / package).rglob("*.py"):
            yield from re.findall(r"""environ(?:\.get\(|\[)\s*["']([A-Z_]+)["']""", source.read_text())


# Read by the commands in bin/ as well.
SHARED = {"STATE_DIR", "DOCKER_HOST"}

# Set by the service's own commands for each other.
INTERNAL = {"DJANGO_SETTINGS_MODULE"}


def test_every_variable_is_documented() -> None:
    documented = set(re.findall(r"^\| `([A-Z_]+)`", (ROOT / "docs" / "configuration.md").read_text(), re.MULTILINE))
    assert set(variables_read()) - INTERNAL <= documented


def test_commands_start_services_without_the_variables_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given all variables in the user's environment
    names = set(variables_read()) - SHARED
    for name in names:
        monkeypatch.setenv(name, "0")

    # I expect none of them in the environment of a service that a command starts
    assert not names & set(without_service())
