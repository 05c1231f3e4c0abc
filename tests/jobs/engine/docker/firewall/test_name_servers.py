"""Which name servers containers have."""

from pathlib import Path

import pytest

from jobs.engine.docker.firewall.name_servers import name_servers

pytestmark = pytest.mark.stateless

RESOLV_CONF = "etc/resolv.conf"
BEHIND_THE_STUB = "run/systemd/resolve/resolv.conf"
DAEMON_JSON = "etc/docker/daemon.json"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, []),
        (
            {RESOLV_CONF: "# by hand\nsearch example.com\nnameserver 10.0.0.2\nnameserver\t2001:db8::1 # second\n"},
            ["10.0.0.2", "2001:db8::1"],
        ),
        ({RESOLV_CONF: "nameserver 127.0.0.53\n", BEHIND_THE_STUB: "nameserver 169.254.169.253\n"}, ["169.254.169.253"]),
        ({RESOLV_CONF: "nameserver 10.0.0.2\n", DAEMON_JSON: '{"dns": ["172.17.0.1", "10.0.0.1"]}'}, ["10.0.0.1", "172.17.0.1"]),
        ({RESOLV_CONF: "nameserver 10.0.0.2\n", DAEMON_JSON: '{"dns": []}'}, ["10.0.0.2"]),
        ({RESOLV_CONF: "nameserver 10.0.0.2\n", DAEMON_JSON: '{"dns": '}, ["10.0.0.2"]),
        ({RESOLV_CONF: "nameserver 10.0.0.2\n", DAEMON_JSON: '["dns"]'}, ["10.0.0.2"]),
        ({RESOLV_CONF: "nameserver 10.0.0.2\n", DAEMON_JSON: '{"dns": [1, "10.0.0.1"]}'}, ["10.0.0.1"]),
    ],
)
def test_name_servers(files: dict[str, str], expected: list[str], tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)

    assert [str(server) for server in name_servers(tmp_path)] == expected


@pytest.mark.parametrize("word", ["", "0.0.0.0", "::", "::1", "fe80::1%eth0", "1.2.3", "} flush ruleset", "1.1.1.1;"])
def test_what_a_container_cannot_ask_is_left_out(word: str, tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / RESOLV_CONF).write_bytes(f"nameserver {word}\nnameserver 9.9.9.9\n".encode())

    assert [str(server) for server in name_servers(tmp_path)] == ["9.9.9.9"]


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / RESOLV_CONF).write_bytes(b"nameserver \xff\xfe\n")

    assert name_servers(tmp_path) == ()
