"""A PostgreSQL and a Redis of one command's own, empty at the start and gone at the end. They listen on loopback only."""

import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypedDict, TypeVar

import psycopg
import redis
from environment import free_port
from processes import interrupt

START_SECONDS = 60
STOP_SECONDS = 30
TRIES = 3  # a port that was free a moment ago may be taken


Found = TypeVar("Found")


class Identity(TypedDict, total=False):
    """`subprocess`' arguments for running as another user."""

    user: int
    group: int
    extra_groups: list[int]


class DatabaseError(Exception):
    """PostgreSQL or Redis is missing or did not start; the message says which, and how to get it."""


@contextmanager
def postgresql(state: Path) -> Iterator[str]:
    """The URL of an empty database, whose user may create others. Raises `DatabaseError`."""
    programs = postgresql_programs()
    account = unprivileged_account()
    with private_directory(state, "postgresql-", account) as directory:
        password = secrets.token_hex(16)
        data = make_cluster(programs, directory, account, password)

        def command(port: int) -> list[str]:
            options = ["listen_addresses=127.0.0.1", f"port={port}", "unix_socket_directories=", "max_connections=300"]
            options += ["fsync=off", "full_page_writes=off"]  # what a power cut would lose does not matter here
            return [str(programs / "postgres"), "-D", str(data), *(f"--{option}" for option in options)]

        def url(port: int) -> str:
            return f"postgresql://orchestrator:{password}@127.0.0.1:{port}/postgres"

        def check(port: int) -> None:
            psycopg.connect(url(port), connect_timeout=2).close()

        with server(command, check, psycopg.OperationalError, directory, account) as port:
            yield url(port)


def make_cluster(programs: Path, directory: Path, account: str | None, password: str) -> Path:
    """The data directory of a new PostgreSQL with the superuser `orchestrator`. Raises `DatabaseError`."""
    data, password_file = directory / "data", directory / "password"
    password_file.touch(mode=0o600)
    password_file.write_text(password)
    if account:
        shutil.chown(password_file, account)
    command = [
        str(programs / "initdb"),
        "-D",
        str(data),
        "-U",
        "orchestrator",
        "-A",
        "scram-sha-256",
        "--pwfile",
        str(password_file),
    ]
    command += ["-E", "UTF8", "--no-locale", "--no-sync"]
    made = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False, timeout=120, **identity(account))
    if made.returncode != 0:
        raise DatabaseError(f"PostgreSQL's initdb failed: {made.stderr.strip()}")
    return data


@contextmanager
def redis_server(state: Path) -> Iterator[str]:
    """The URL of an empty Redis. Raises `DatabaseError`."""
    program = shutil.which("redis-server") or installed("redis-server", lambda: shutil.which("redis-server"))
    with private_directory(state, "redis-", None) as directory:
        password = secrets.token_hex(16)

        def command(port: int) -> list[str]:
            settings = directory / "redis.conf"
            settings.touch(mode=0o600)
            settings.write_text(
                f'bind 127.0.0.1\nport {port}\nrequirepass {password}\nsave ""\nappendonly no\ndir "{directory}"\n'
            )
            return [program, str(settings)]

        def url(port: int) -> str:
            return f"redis://:{password}@127.0.0.1:{port}/0"

        def check(port: int) -> None:
            client = redis.Redis.from_url(url(port), socket_timeout=2)
            try:
                client.ping()
            finally:
                client.close()

        with server(command, check, redis.RedisError, directory, None) as port:
            yield url(port)


@contextmanager
def server(
    command: Callable[[int], list[str]],
    check: Callable[[int], None],
    not_yet: type[Exception],
    directory: Path,
    account: str | None,
) -> Iterator[int]:
    """Run `command(port)` and yield the port once `check(port)` passes. Raises `DatabaseError`."""
    log = directory / "log"
    for _ in range(TRIES):
        port = free_port()
        with log.open("wb") as output:
            process = subprocess.Popen(
                command(port),
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # a Ctrl-C is for the command, which stops this one in its turn
                **identity(account),
            )
        try:
            if answers(process, check, port, not_yet):
                yield port
                return
        finally:
            interrupt(process, STOP_SECONDS)  # PostgreSQL's fast shutdown
    raise DatabaseError(f"{Path(command(0)[0]).name} did not start: {log.read_text(errors='replace')[-2000:]}")


def answers(process: subprocess.Popen[bytes], check: Callable[[int], None], port: int, not_yet: type[Exception]) -> bool:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            check(port)
        except not_yet:
            time.sleep(0.05)
        else:
            return True
    return False


def postgresql_programs() -> Path:
    """The directory of `initdb` and `postgres`. Raises `DatabaseError`."""

    def find() -> Path | None:
        found = shutil.which("initdb")
        newest_first = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: -int(path.parent.name))
        return Path(found).resolve().parent if found else next(iter(newest_first), None)

    return find() or installed("postgresql", find)


def installed(package: str, find: Callable[[], Found | None]) -> Found:
    """What `find` finds once the package is installed. Raises `DatabaseError`."""
    subprocess.run([Path(__file__).with_name("apt-install"), package], check=False)
    found = find()
    if found is None:
        raise DatabaseError(f"{package} is missing: install it (on Debian: apt-get install {package}).")
    return found


def unprivileged_account() -> str | None:
    """Whom to run PostgreSQL as, which refuses to be root; None for the present user."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


def identity(account: str | None) -> Identity:
    if account is None:
        return {}
    entry = pwd.getpwnam(account)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


@contextmanager
def private_directory(state: Path, prefix: str, account: str | None) -> Iterator[Path]:
    """A directory of that account's below `state`, or in /tmp where the account cannot get there; removed at the end."""
    state.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix=prefix, dir=state))
    try:
        if account:
            shutil.chown(directory, account)
            reached = subprocess.run(["test", "-w", str(directory)], cwd="/", check=False, **identity(account))
            if reached.returncode != 0:
                directory.rmdir()
                directory = Path(tempfile.mkdtemp(prefix=f"orchestrator-{prefix}"))
                shutil.chown(directory, account)
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
