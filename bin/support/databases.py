"""A PostgreSQL and a Redis for one command: empty at the start, removed at the end, listening on loopback only."""

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TypedDict, TypeVar

import psycopg
import redis
from environment import free_port
from processes import interrupt

START_SECONDS = 60
STOP_SECONDS = 30
MAX_START_TRIES = 3  # a free port may be taken before the server listens on it


Found = TypeVar("Found")


class Identity(TypedDict, total=False):
    """Arguments of `subprocess` for running as another user."""

    user: int
    group: int
    extra_groups: list[int]


class DatabaseError(Exception):
    """PostgreSQL or Redis is missing or did not start. The message says which one, and what to do."""


class Server:
    """A server program on a loopback port, which it keeps when it is stopped and started again."""

    def __init__(
        self,
        command: Callable[[int], list[str]],
        url: Callable[[int], str],
        check: Callable[[str], None],
        not_ready: type[Exception],
        directory: Path,
        account: str | None,
    ) -> None:
        """`check(url)` must raise `not_ready` until the server answers."""
        self.port = 0
        self.process: subprocess.Popen[bytes] | None = None
        self._command = command
        self._url = url
        self._check = check
        self._not_ready = not_ready
        self._directory = directory
        self._account = account

    @property
    def url(self) -> str:
        return self._url(self.port)

    def start(self) -> None:
        """Start it on the port that it had before, or on a free one. Raise `DatabaseError` if it does not answer."""
        for _ in range(MAX_START_TRIES):
            port = self.port or free_port()
            if self._starts(port):
                self.port = port
                return
        raise DatabaseError(f"{Path(self._command(0)[0]).name} did not start: {self._log.read_text(errors='replace')[-2000:]}")

    def stop(self) -> None:
        """Stop it as an administrator does (PostgreSQL: a fast shutdown)."""
        if self.process:
            interrupt(self.process, STOP_SECONDS)

    def kill(self) -> None:
        """Kill it with all its processes, as a crash does."""
        if self.process:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    @property
    def _log(self) -> Path:
        return self._directory / "log"

    def _starts(self, port: int) -> bool:
        with self._log.open("wb") as output:
            self.process = subprocess.Popen(
                self._command(port),
                cwd=self._directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C must reach the command only, which then stops the server
                **identity(self._account),
            )
        deadline = time.monotonic() + START_SECONDS
        while self.process.poll() is None and time.monotonic() < deadline:
            try:
                self._check(self._url(port))
            except self._not_ready:
                time.sleep(0.05)
            else:
                return True
        self.stop()
        return False


@contextmanager
def running(server: Server) -> Iterator[Server]:
    """Run the server for as long as the context lasts."""
    try:
        server.start()
        yield server
    finally:
        server.stop()


@contextmanager
def postgresql(state: Path) -> Iterator[Server]:
    """Run a PostgreSQL with an empty database, whose user may create others. Raise `DatabaseError` if it does not start."""
    programs = postgresql_programs()
    account = unprivileged_account()
    with private_directory(state, "postgresql-", account) as directory:
        password = secrets.token_hex(16)
        data = make_cluster(programs, directory, account, password)

        def command(port: int) -> list[str]:
            options = ["listen_addresses=127.0.0.1", f"port={port}", "unix_socket_directories=", "max_connections=300"]
            options += ["fsync=off", "full_page_writes=off"]  # durability does not matter here
            return [str(programs / "postgres"), "-D", str(data), *(f"--{option}" for option in options)]

        def url(port: int) -> str:
            return f"postgresql://orchestrator:{password}@127.0.0.1:{port}/postgres"

        def check(address: str) -> None:
            psycopg.connect(address, connect_timeout=2).close()

        with running(Server(command, url, check, psycopg.OperationalError, directory, account)) as server:
            yield server


def make_cluster(programs: Path, directory: Path, account: str | None, password: str) -> Path:
    """Create the data directory of a PostgreSQL with the superuser `orchestrator`. Raise `DatabaseError` if that fails."""
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
def redis_server(state: Path) -> Iterator[Server]:
    """Run an empty Redis without persistence. Raise `DatabaseError` if it does not start."""
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

        def check(address: str) -> None:
            with closing(redis.Redis.from_url(address, socket_timeout=2)) as client:
                client.ping()

        with running(Server(command, url, check, redis.RedisError, directory, None)) as server:
            yield server


def postgresql_programs() -> Path:
    """Return the directory of `initdb` and `postgres`. Raise `DatabaseError` if they are missing."""

    def find() -> Path | None:
        found = shutil.which("initdb")
        newest_first = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: -int(path.parent.name))
        return Path(found).resolve().parent if found else next(iter(newest_first), None)

    return find() or installed("postgresql", find)


def installed(package: str, find: Callable[[], Found | None]) -> Found:
    """Install a Debian package and return what `find` finds then. Raise `DatabaseError` if it finds nothing."""
    subprocess.run([Path(__file__).with_name("apt-install"), package], check=False)
    found = find()
    if found is None:
        raise DatabaseError(f"{package} is missing: install it (on Debian: apt-get install {package}).")
    return found


def unprivileged_account() -> str | None:
    """Return the account to run PostgreSQL as, which refuses to run as root; None for the current user."""
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
    """Make a directory that `account` owns, below `state` or, without access to that, in /tmp. Remove it at the end."""
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
