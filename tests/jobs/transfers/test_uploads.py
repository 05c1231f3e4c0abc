"""Uploads: a regular file, whole, to a URL that says that it has it."""

import hashlib
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs.errors import EngineUnavailable, Interrupted, OutputNotFound, ReadFailed, UploadFailed
from jobs.interrupt import Interrupt
from jobs.transfers import Place, put_file, send_upload
from tests.helpers import fileserver
from tests.helpers.fileserver import FileServer, early, redirect, status
from tests.jobs.transfers import workspaces
from tests.jobs.transfers.workspaces import fake_place, plant

pytestmark = pytest.mark.stateless

CONTENT = bytes(range(256)) * 16384  # 4 MiB: more than sockets hold

Upload = Callable[..., int]


@pytest.fixture
def place() -> Iterator[Place]:
    with fake_place() as one:
        yield one


@pytest.fixture
def server() -> Iterator[FileServer]:
    with FileServer() as one:
        yield one


@pytest.fixture
def upload(place: Place, tmp_path: Path) -> Upload:
    """Uploads `out.bin`."""

    def run(url: str, method: str = "PUT", headers: dict[str, str] | None = None, path: str = "out.bin", **changed: Any) -> int:
        interrupt = changed.pop("interrupt", None) or Interrupt()
        return send_upload(
            place, path, url, method, headers or {}, limits=workspaces.limits(tmp_path, **changed), interrupt=interrupt
        )

    return run


class TestUpload:
    @pytest.mark.parametrize("method", ["PUT", "POST"])
    @pytest.mark.parametrize("data", [b"", b"x", CONTENT], ids=["empty", "a byte", "4 MiB"])
    def test_the_file_arrives(self, place: Place, server: FileServer, upload: Upload, method: str, data: bytes) -> None:
        # Given a file that a job left
        put_file(place, "out.bin", data)
        # When it is uploaded
        assert upload(server.url("/file"), method, {"X-Token": "t"}) == len(data)
        # I expect it at the server, with its length and the job's headers
        (request,) = server.requests
        assert (request.method, request.size, request.sha256) == (method, len(data), hashlib.sha256(data).hexdigest())
        assert request.headers["Content-Length"] == str(len(data))
        assert "Transfer-Encoding" not in request.headers
        assert request.headers["X-Token"] == "t"

    def test_path_and_query_are_sent_as_they_are(self, place: Place, server: FileServer, upload: Upload) -> None:
        put_file(place, "out.bin", b"x")
        target = "/a%2fb/./%7Ex/../y?sig=a%2bb%3d%7e&%c3%A9"
        upload(f"{server.url('')}{target}#fragment")
        assert [request.target for request in server.requests] == [target]

    def test_header_values_are_sent_in_latin_1(self, place: Place, server: FileServer, upload: Upload) -> None:
        put_file(place, "out.bin", b"x")
        upload(server.url("/file"), headers={"X-Name": "résumé"})
        assert server.requests[0].headers["X-Name"].encode("latin-1") == b"r\xe9sum\xe9"

    def test_an_answer_may_have_many_headers(self, place: Place, server: FileServer, upload: Upload) -> None:
        put_file(place, "out.bin", b"x")
        assert upload(server.fault("/file", status(200, **{f"X_{number}": "x" for number in range(150)}))) == 1
        assert len(server.requests) == 1

    @pytest.mark.parametrize("code", [200, 201, 202, 204, 299])
    def test_every_2xx_is_success(self, place: Place, server: FileServer, upload: Upload, code: int) -> None:
        put_file(place, "out.bin", b"x")
        assert upload(server.fault("/file", status(code))) == 1

    @pytest.mark.parametrize("code", [300, 301, 307, 308])
    def test_a_redirect_is_a_failure(self, place: Place, server: FileServer, upload: Upload, code: int) -> None:
        put_file(place, "out.bin", b"x")
        with pytest.raises(UploadFailed, match=f"PUT http://127.0.0.1:.*/file was answered {code}"):
            upload(server.fault("/file", redirect("/elsewhere", code)))
        assert len(server.requests) == 1

    @pytest.mark.parametrize("code", [400, 401, 403, 404, 409, 410, 413, 415])
    def test_another_4xx_is_final(self, place: Place, server: FileServer, upload: Upload, code: int) -> None:
        put_file(place, "out.bin", b"x")
        with pytest.raises(UploadFailed, match=f"was answered {code}"):
            upload(server.fault("/file", status(code)))
        assert len(server.requests) == 1

    @pytest.mark.parametrize(
        ("path", "words"),
        [
            ("missing", "does not exist"),
            ("directory", "is a directory, not a regular file"),
            ("link", "is a symbolic link, not a regular file"),
        ],
    )
    def test_only_a_regular_file_is_sent(self, place: Place, server: FileServer, upload: Upload, path: str, words: str) -> None:
        plant(place, "/workspace", ("directory", tarfile.DIRTYPE, ""), ("link", tarfile.SYMTYPE, "/etc/passwd"))
        with pytest.raises(OutputNotFound if path == "missing" else ReadFailed, match=f'"{path}" {words}'):
            upload(server.url("/file"), path=path)
        assert server.requests == []

    def test_a_file_over_the_limit_is_not_sent(self, place: Place, server: FileServer, upload: Upload) -> None:
        put_file(place, "out.bin", bytes(11))
        with pytest.raises(ReadFailed, match="has 11 bytes, more than the 10 that are allowed"):
            upload(server.url("/file"), size=10)
        assert server.requests == []

    @pytest.mark.parametrize("name", ["Content-Length", "transfer-encoding", "Host"])
    def test_headers_cannot_reframe_the_request(self, place: Place, server: FileServer, upload: Upload, name: str) -> None:
        put_file(place, "out.bin", b"x")
        with pytest.raises(UploadFailed, match=name):
            upload(server.url("/file"), headers={name: "1"})
        assert server.requests == []

    def test_a_message_holds_no_secret(self, place: Place, server: FileServer, upload: Upload) -> None:
        put_file(place, "out.bin", b"x")
        url = server.fault("/file", status(403)).replace("http://", "http://user:pa55word@") + "?signature=s1gn"
        with pytest.raises(UploadFailed) as failure:
            upload(url, headers={"Authorization": "Bearer s3cret"})
        assert not any(secret in str(failure.value) for secret in ("s3cret", "pa55word", "s1gn", "user"))


class TestRetries:
    @pytest.mark.parametrize("fault", [status(408), status(425), status(429), status(500), status(503), fileserver.reset])
    def test_what_may_pass_is_tried_again_from_the_start(
        self, place: Place, server: FileServer, upload: Upload, fault: fileserver.Fault
    ) -> None:
        # Given a server that fails five times
        put_file(place, "out.bin", CONTENT)
        url = server.fault("/file", *[fault] * 5)
        # I expect the sixth try to bring the whole file
        assert upload(url) == len(CONTENT)
        assert server.requests[-1].sha256 == hashlib.sha256(CONTENT).hexdigest()

    def test_six_tries_are_all(self, place: Place, server: FileServer, upload: Upload) -> None:
        put_file(place, "out.bin", b"x")
        with pytest.raises(UploadFailed, match=r"was answered 503 Service Unavailable \(tried 6 times\)"):
            upload(server.fault("/file", *[status(503)] * 10))
        assert len(server.requests) == 6

    def test_an_early_no_is_heard(self, place: Place, server: FileServer, upload: Upload) -> None:
        # Given a server that refuses after the first bytes of a file, and hangs up
        put_file(place, "out.bin", CONTENT)
        with pytest.raises(UploadFailed, match="was answered 413"):
            upload(server.fault("/file", *[early(413, after=1000)] * 6))

    def test_an_early_yes_is_not_believed(self, place: Place, server: FileServer, upload: Upload) -> None:
        # Given a server that says that all is well before it has everything
        put_file(place, "out.bin", CONTENT * 4)
        url = server.fault("/file", early(200, after=1000))
        # I expect the file to be sent again
        assert upload(url) == len(CONTENT) * 4
        assert server.requests[-1].size == len(CONTENT) * 4

    def test_a_server_that_takes_nothing_is_silent_too(self, place: Place, server: FileServer, upload: Upload) -> None:
        put_file(place, "out.bin", CONTENT * 4)
        assert upload(server.fault("/file", fileserver.hang), read=0.3) == len(CONTENT) * 4

    def test_a_deadline_ends_it(self, place: Place, server: FileServer, upload: Upload) -> None:
        put_file(place, "out.bin", b"x")
        with pytest.raises(UploadFailed, match="was not done in the time that transfers have"):
            upload(server.fault("/file", fileserver.hang), deadline=time.monotonic() + 0.3)

    @pytest.mark.parametrize("data", [b"x", CONTENT * 4], ids=["while it waits", "while it sends"])
    def test_an_interrupt_ends_it_at_once(self, place: Place, server: FileServer, upload: Upload, data: bytes) -> None:
        # Given an upload to a server that says nothing
        put_file(place, "out.bin", data)
        interrupt = Interrupt()
        waker = threading.Thread(target=lambda: (server.hanging.acquire(timeout=20), interrupt.wake()))
        waker.start()
        # When the worker is to let go
        with pytest.raises(Interrupted):
            upload(server.fault("/file", fileserver.hang), interrupt=interrupt)
        waker.join()

    def test_an_engine_that_breaks_off_is_not_the_peers_fault(self, place: Place, server: FileServer, upload: Upload) -> None:
        put_file(place, "out.bin", b"x")
        place.engine.fail_next("get", EngineUnavailable("away"))  # type: ignore[attr-defined]
        with pytest.raises(EngineUnavailable):
            upload(server.url("/file"))

    def test_an_engine_that_breaks_off_in_the_middle_leaves_half_a_request(
        self, place: Place, server: FileServer, upload: Upload, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Given an engine whose archive ends in the middle of the file
        put_file(place, "out.bin", CONTENT)
        whole = place.engine.get

        class Cut:
            def __init__(self, name: str, path: str) -> None:
                self._archive = whole(name, path)

            def __enter__(self) -> Iterator[bytes]:
                chunks = self._archive.__enter__()
                return iter([next(chunks), next(chunks)])

            def __exit__(self, *error: Any) -> None:
                self._archive.__exit__(*error)

        monkeypatch.setattr(place.engine, "get", Cut)
        # I expect the engine's error, and no file that the server could take for whole
        with pytest.raises(EngineUnavailable):
            upload(server.url("/file"))
        assert all(request.size < len(CONTENT) for request in server.requests)
