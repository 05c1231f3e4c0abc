"""POST /v1/jobs."""

import json
import uuid
from base64 import b64encode
from contextlib import suppress
from io import BytesIO
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.db import InterfaceError, InternalError, OperationalError
from django.test import Client, RequestFactory
from hypothesis import given
from hypothesis import strategies as st
from rest_framework.serializers import ValidationError

from jobs import services
from jobs.api import limits
from jobs.api.fields import Url, file_path
from jobs.api.new_job import EVENT_TYPES, NewJob
from jobs.models import Job
from jobs.spec import CallbackSpec, JobSpec
from orchestrator_site.base.http.api_errors import ApiError, InvalidRequest
from orchestrator_site.base.http.body_limit import MAX_BODY_BYTES
from orchestrator_site.base.http.json_body import parse_json, read_json
from tests.helpers.api_calls import expect_error, post_body, post_job

pytestmark = pytest.mark.django_db

FILE = {"type": "file", "path": "in.txt", "content": "hello"}
DOWNLOAD = {"type": "download", "path": "in.bin", "url": "https://example.com/in.bin"}
UPLOAD = {"type": "upload", "path": "out.bin", "url": "https://example.com/out.bin"}
EVENT = {"type": "event", "path": "result.json"}
URL = "https://example.com/hook"


def read(**members: Any) -> JobSpec:
    return NewJob.read({"image": "alpine:latest", **members})


def read_callback(**members: Any) -> CallbackSpec:
    callback = read(callback={"url": URL, **members}).callback
    assert callback is not None
    return callback


def refused_field(**members: Any) -> str | None:
    with pytest.raises(InvalidRequest) as refused:
        read(**members)
    return refused.value.field


class TestAcceptedJobs:
    def test_the_answer_has_the_id_and_the_location(self, client: Client) -> None:
        # When I post nothing but an image
        answer = post_job(client)
        # I expect a stored job with a generated id
        assert answer.status_code == 202
        body = answer.json()
        assert body == {"id": body["id"], "status": "accepted"}
        assert uuid.UUID(body["id"]).version == 7
        assert answer["Location"] == f"/v1/jobs/{body['id']}"
        assert Job.objects.filter(id=body["id"]).exists()

    def test_a_given_id_is_kept(self, client: Client) -> None:
        assert post_job(client, id="Build.42_b-1").json()["id"] == "Build.42_b-1"

    def test_an_id_that_exists_is_a_conflict(self, client: Client) -> None:
        # Given a job
        post_job(client, id="twice")
        # When I post another job with its id, I expect an error and the first job unchanged
        expect_error(post_job(client, id="twice", image="busybox"), 409, "id")
        assert Job.objects.get(id="twice").image == "alpine:latest"

    def test_a_body_with_every_member_is_accepted(self, client: Client) -> None:
        answer = post_job(
            client,
            id="everything",
            command=["python", "-c", "print(1)", ""],
            cpu=0.5,
            memory=128,
            timeoutSeconds=60,
            environment={"FOO": "bar", "ÜMLAUT": "ä\n"},
            meta={"team": "a"},
            workspace="/srv//work/./x/",
            inputs=[{**FILE, "mode": "0755", "id": "a"}, {**DOWNLOAD, "headers": {"X-A": "b"}, "sha256": "AB" * 32}],
            outputs=[{**UPLOAD, "method": "POST", "headers": {"Authorization": "x"}}, EVENT],
            pullPolicy="never",
            network="none",
            callback={"url": URL, "key": ["k", "l"], "headers": {"X-A": "b"}, "events": ["orchestrator.job.exit"]},
        )
        assert answer.status_code == 202, answer.content
        job = Job.objects.get(id="everything")
        assert job.workspace == "/srv/work/x"
        assert [(row.name, row.mode) for row in job.inputs.all()] == [("a", 0o755), ("input-2", 0o644)]
        assert [row.name for row in job.outputs.all()] == ["output-1", "output-2"]
        assert job.inputs.get(name="input-2").sha256 == "ab" * 32
        assert job.environment == {"FOO": "bar", "ÜMLAUT": "ä\n"}

    def test_absent_members_get_their_defaults(self) -> None:
        spec = read()
        assert (spec.cpu_millis, spec.memory_mib, spec.timeout_seconds) == (1000, 512, 1800)
        assert (spec.command, spec.workspace, spec.pull_policy, spec.network) == (None, "/workspace", "missing", "bridge")
        assert (spec.inputs, spec.outputs, spec.callback, spec.environment, spec.meta) == ((), (), None, {}, {})

    def test_a_utf_8_charset_is_accepted(self, client: Client) -> None:
        assert post_body(client, '{"image": "alpine"}', "application/json; charset=UTF-8").status_code == 202

    def test_a_body_of_one_mebibyte_is_accepted(self, client: Client) -> None:
        rest = len(json.dumps({"image": "alpine:latest", "inputs": [{**FILE, "content": ""}]}))
        assert post_job(client, inputs=[{**FILE, "content": "x" * (MAX_BODY_BYTES - rest)}]).status_code == 202

    def test_a_chunked_body_is_read_to_its_end(self) -> None:
        # Given a request without a length, from a server that marks the end of the body
        request = RequestFactory().post("/v1/jobs", content_type="application/json")
        request.META |= {"CONTENT_LENGTH": "", "wsgi.input_terminated": True, "wsgi.input": BytesIO(b'{"image": "a"}')}
        # I expect the whole body
        assert read_json(request, dict) == {"image": "a"}

    def test_a_chunked_body_has_the_same_limit(self) -> None:
        request = RequestFactory().post("/v1/jobs", content_type="application/json")
        body = BytesIO(b"[" + b" " * 10 * MAX_BODY_BYTES)
        request.META |= {"CONTENT_LENGTH": "", "wsgi.input_terminated": True, "wsgi.input": body}
        with pytest.raises(ApiError) as refused:
            read_json(request, dict)
        assert refused.value.status == 413
        assert body.tell() < 2 * MAX_BODY_BYTES  # and the rest was not read

    def test_a_body_that_ends_early_is_refused(self) -> None:
        # Given a complete JSON value, and a length that announces more
        request = RequestFactory().post("/v1/jobs", b'{"image": "a"}', content_type="application/json")
        request.META["CONTENT_LENGTH"] = "500"
        # I expect an error
        with pytest.raises(InvalidRequest, match="ended early"):
            read_json(request, dict)

    @given(millis=st.integers(10, 64_000))
    def test_cpu_is_exact_to_the_thousandth(self, millis: int) -> None:
        assert read(cpu=json.loads(f"{millis / 1000}")).cpu_millis == millis

    def test_a_part_of_a_thousandth_is_rounded_up(self) -> None:
        assert read(cpu=0.0101).cpu_millis == 11

    def test_integers_may_be_written_with_a_fraction_of_zero(self) -> None:
        assert read(memory=128.0, cpu=1).memory_mib == 128

    @pytest.mark.parametrize(
        "image",
        [
            "alpine",
            "library/alpine:3.20",
            "localhost/x",
            "localhost:5000/a/b_c/d__e/f-g.h:Tag_1.0-x",
            "127.0.0.1:5000/x",
            "Registry.Example.COM/team/app",
            "ghcr.io/a/b@sha256:" + "a" * 64,
            "a:b@sha512:" + "0" * 128,
            "a" * 237,
        ],
    )
    def test_valid_image_references_are_accepted(self, image: str) -> None:
        assert read(image=image).image == image

    @pytest.mark.parametrize("text", ["x" * 131_071, "é" * 65_535])
    def test_arguments_may_be_as_long_as_linux_allows(self, text: str) -> None:
        assert read(command=text).command == text
        assert read(command=["a", text]).command == ["a", text]
        assert read(environment={"NAME": text[5:]}).environment == {"NAME": text[5:]}

    def test_event_types_are_those_of_the_documentation(self) -> None:
        names = ("input", "start", "log", "exit", "output", "complete")
        assert tuple(f"orchestrator.job.{name}" for name in names) == EVENT_TYPES

    def test_empty_event_list_means_all_and_repeats_count_once(self) -> None:
        assert read_callback(events=[]).events == ()
        assert read_callback(events=[EVENT_TYPES[0], EVENT_TYPES[0]]).events == (EVENT_TYPES[0],)

    def test_base64_content_is_decoded(self) -> None:
        content = bytes(range(256))
        entry = {**FILE, "content": b64encode(content).decode(), "encoding": "base64"}
        assert read(inputs=[entry]).inputs[0].content == content

    @pytest.mark.parametrize(
        "key", ["k", "whsec", "WHSEC_AA==", *("whsec_" + b64encode(bytes(n)).decode() for n in (24, 32, 64))]
    )
    def test_valid_keys_are_accepted(self, key: str) -> None:
        assert read_callback(key=key).keys == (key,)

    def test_two_keys_are_kept_in_their_order(self) -> None:
        assert read_callback(key=["new", "old"]).keys == ("new", "old")
        assert read_callback(key=["only"]).keys == ("only",)
        assert read_callback(key=["same", "same"]).keys == ("same",)

    def test_callback_headers_are_kept_as_they_are(self) -> None:
        headers = {"Authorization": "Bearer x", "X-Tenant": "7", "Prefer": ""}
        assert read_callback(headers=headers).headers == headers
        largest = {"A": "x" * (limits.CALLBACK_HEADERS_BYTES - 1)}
        assert read_callback(headers=largest).headers == largest

    def test_a_callback_has_neither_keys_nor_headers_by_default(self) -> None:
        callback = read_callback()
        assert (callback.keys, callback.headers, callback.events) == ((), {}, ())

    def test_a_pattern_selects_all_events(self) -> None:
        assert read_callback(events=["orchestrator.job.*"]).events == ()
        assert read_callback(events=[EVENT_TYPES[0], "orchestrator.job.*"]).events == ()

    def test_keys_and_headers_are_not_in_the_repr_of_a_spec(self) -> None:
        assert "canary" not in repr(read_callback(key=["canary1", "canary2"], headers={"X": "canary3"}))

    def test_the_error_of_a_weak_key_says_what_is_expected(self, client: Client) -> None:
        sentence = expect_error(post_job(client, callback={"url": URL, "key": "whsec_AA=="}), 400, "callback.key")
        assert "24 to 64 bytes in padded base64" in sentence

    def test_outputs_may_share_a_path(self) -> None:
        assert len(read(outputs=[EVENT, {**UPLOAD, "path": EVENT["path"]}]).outputs) == 2


LONG = "x" * 4000
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"imagee": "x"}, "imagee"),
    ({"image": None}, "image"),
    ({"image": ""}, "image"),
    ({"image": "Alpine"}, "image"),
    ({"image": "Team/alpine"}, "image"),
    ({"image": "alpine:"}, "image"),
    ({"image": "alpine\n"}, "image"),
    ({"image": "a//b"}, "image"),
    ({"image": "a@sha256:" + "a" * 63}, "image"),
    ({"image": "-a"}, "image"),
    ({"image": "http://a/b"}, "image"),
    ({"image": "a" * 256}, "image"),
    ({"image": "a.b/" * 128 + "a"}, "image"),
    ({"image": "f" * 64}, "image"),
    ({"image": "[::1]:1/x:y"}, "image"),
    ({"command": "x" * 131_072}, "command"),
    ({"command": "é" * 65_536}, "command"),
    ({"command": ["sh", "-c", "x" * 131_072]}, "command[2]"),
    ({"command": [""] * 250_000}, "command"),
    ({"environment": {"A": "x", "NAME": "x" * (131_072 - len("NAME="))}}, "environment.NAME"),
    ({"image": "localhost/" + "a" * 254}, "image"),
    ({"id": ""}, "id"),
    ({"id": "-a"}, "id"),
    ({"id": "a b"}, "id"),
    ({"id": "a\n"}, "id"),
    ({"id": "ä"}, "id"),
    ({"id": "a" * 129}, "id"),
    ({"id": 1}, "id"),
    ({"command": []}, "command"),
    ({"command": {}}, "command"),
    ({"command": ["a", 1]}, "command[1]"),
    ({"cpu": "1"}, "cpu"),
    ({"cpu": True}, "cpu"),
    ({"cpu": 0.009}, "cpu"),
    ({"cpu": 64.001}, "cpu"),
    ({"cpu": 10**400}, "cpu"),
    ({"memory": 5}, "memory"),
    ({"memory": 65537}, "memory"),
    ({"memory": 6.5}, "memory"),
    ({"memory": True}, "memory"),
    ({"memory": "512"}, "memory"),
    ({"timeoutSeconds": 86401}, "timeoutSeconds"),
    ({"environment": []}, "environment"),
    ({"environment": {"FOO": 1}}, "environment.FOO"),
    ({"environment": {"A=B": "x"}}, "environment.A=B"),
    ({"environment": {"": "x"}}, 'environment.""'),
    ({"environment": {f"A{n}": "" for n in range(257)}}, "environment"),
    ({"meta": {"a": True}}, "meta.a"),
    ({"meta": {"k" * 65: "x"}}, "meta." + "k" * 65),
    ({"meta": {"a": "x" * 257}}, "meta.a"),
    ({"meta": {f"a{n}": "" for n in range(33)}}, "meta"),
    ({"meta": {f"a{n}": "\U0001f600" * 256 for n in range(9)}}, "meta"),
    ({"workspace": "work"}, "workspace"),
    ({"workspace": "/a/../b"}, "workspace"),
    ({"workspace": "/dev"}, "workspace"),
    ({"workspace": "//dev/./shm/"}, "workspace"),
    ({"workspace": "/proc/self"}, "workspace"),
    ({"workspace": "/sys/x"}, "workspace"),
    ({"workspace": "/" + LONG}, "workspace"),
    ({"pullPolicy": "Always"}, "pullPolicy"),
    ({"network": "host"}, "network"),
    ({"inputs": {}}, "inputs"),
    ({"inputs": [{**FILE, "path": f"f{n}"} for n in range(65)]}, "inputs"),
    ({"inputs": ["x"]}, "inputs[0]"),
    ({"inputs": [{"path": "x"}]}, "inputs[0].type"),
    ({"inputs": [{**FILE, "type": "git"}]}, "inputs[0].type"),
    ({"inputs": [{**FILE, "url": URL}]}, "inputs[0].url"),
    ({"inputs": [{**DOWNLOAD, "content": "x"}]}, "inputs[0].content"),
    ({"inputs": [{"type": "file", "path": "x"}]}, "inputs[0].content"),
    ({"inputs": [{"type": "download", "path": "x"}]}, "inputs[0].url"),
    ({"inputs": [{**FILE, "id": ""}]}, "inputs[0].id"),
    ({"inputs": [{**FILE, "encoding": "latin-1"}]}, "inputs[0].encoding"),
    ({"inputs": [{**FILE, "encoding": "base64", "content": "aGk"}]}, "inputs[0].content"),
    ({"inputs": [{**FILE, "encoding": "base64", "content": "aG k="}]}, "inputs[0].content"),
    ({"inputs": [{**FILE, "encoding": "base64", "content": "aGk=\n"}]}, "inputs[0].content"),
    ({"inputs": [{**FILE, "encoding": "base64", "content": "ä==="}]}, "inputs[0].content"),
    ({"inputs": [{**FILE, "mode": 493}]}, "inputs[0].mode"),
    ({"inputs": [{**FILE, "mode": "0888"}]}, "inputs[0].mode"),
    ({"inputs": [{**FILE, "mode": "10000"}]}, "inputs[0].mode"),
    ({"inputs": [{**FILE, "mode": ""}]}, "inputs[0].mode"),
    ({"inputs": [{**DOWNLOAD, "sha256": "a" * 63}]}, "inputs[0].sha256"),
    ({"inputs": [{**DOWNLOAD, "sha256": "g" * 64}]}, "inputs[0].sha256"),
    ({"inputs": [{**DOWNLOAD, "headers": {"A": 1}}]}, "inputs[0].headers.A"),
    ({"inputs": [{**DOWNLOAD, "headers": {"A B": "x"}}]}, "inputs[0].headers.A B"),
    ({"inputs": [{**DOWNLOAD, "headers": {"host": "x"}}]}, "inputs[0].headers.host"),
    ({"inputs": [{**DOWNLOAD, "headers": {"Content-Length": "1"}}]}, "inputs[0].headers.Content-Length"),
    ({"inputs": [{**DOWNLOAD, "headers": {"A": "x\r\nB: y"}}]}, "inputs[0].headers.A"),
    ({"inputs": [{**DOWNLOAD, "headers": {"A": "€"}}]}, "inputs[0].headers.A"),
    ({"inputs": [{**DOWNLOAD, "headers": {"A": " x"}}]}, "inputs[0].headers.A"),
    ({"outputs": [{**UPLOAD, "headers": {"A": "漢"}}]}, "outputs[0].headers.A"),
    ({"inputs": [{**DOWNLOAD, "headers": {"A": "x", "a": "y"}}]}, "inputs[0].headers"),
    ({"inputs": [FILE, {**FILE, "path": "./in.txt"}]}, "inputs[1].path"),
    ({"inputs": [FILE, {**FILE, "path": "in.txt/x"}]}, "inputs[1].path"),
    ({"inputs": [{**FILE, "path": "a/b"}, {**FILE, "path": "a"}]}, "inputs[1].path"),
    ({"inputs": [FILE, {**DOWNLOAD, "id": "input-1"}]}, "inputs[1].id"),
    ({"inputs": [{**FILE, "id": "x"}], "outputs": [EVENT, {**EVENT, "id": "x"}]}, "outputs[1].id"),
    ({"inputs": [{**FILE, "id": "output-1"}], "outputs": [EVENT]}, "outputs[0].id"),
    ({"outputs": [{**EVENT, "url": URL}]}, "outputs[0].url"),
    ({"outputs": [{**UPLOAD, "method": "PATCH"}]}, "outputs[0].method"),
    ({"outputs": [{**UPLOAD, "mode": "0644"}]}, "outputs[0].mode"),
    ({"outputs": [EVENT] * 65}, "outputs"),
    ({"callback": "x"}, "callback"),
    ({"callback": {}}, "callback.url"),
    ({"callback": {"url": URL, "keys": "x"}}, "callback.keys"),
    ({"callback": {"url": URL, "key": ""}}, "callback.key"),
    ({"callback": {"url": URL, "key": "k" * 1025}}, "callback.key"),
    ({"callback": {"url": URL, "key": "whsec_"}}, "callback.key"),
    ({"callback": {"url": URL, "key": "whsec_!"}}, "callback.key"),
    ({"callback": {"url": URL, "key": "whsec_AA=="}}, "callback.key"),
    ({"callback": {"url": URL, "key": "whsec_" + b64encode(bytes(23)).decode()}}, "callback.key"),
    ({"callback": {"url": URL, "key": "whsec_" + b64encode(bytes(65)).decode()}}, "callback.key"),
    ({"callback": {"url": URL, "key": "whsec_" + b64encode(bytes(25)).decode().rstrip("=")}}, "callback.key"),
    ({"callback": {"url": URL, "key": []}}, "callback.key"),
    ({"callback": {"url": URL, "key": {"a": "b"}}}, "callback.key"),
    ({"callback": {"url": URL, "key": ["a", "b", "c"]}}, "callback.key"),
    ({"callback": {"url": URL, "key": ["a", ""]}}, "callback.key[1]"),
    ({"callback": {"url": URL, "key": ["a", 1]}}, "callback.key[1]"),
    ({"callback": {"url": URL, "key": ["a", "whsec_AA=="]}}, "callback.key[1]"),
    ({"callback": {"url": URL, "headers": ["A"]}}, "callback.headers"),
    ({"callback": {"url": URL, "headers": {"A": 1}}}, "callback.headers.A"),
    ({"callback": {"url": URL, "headers": {"A B": "x"}}}, "callback.headers.A B"),
    ({"callback": {"url": URL, "headers": {"": "x"}}}, 'callback.headers.""'),
    ({"callback": {"url": URL, "headers": {"A": "x\r\nB: y"}}}, "callback.headers.A"),
    ({"callback": {"url": URL, "headers": {"A": "x\n"}}}, "callback.headers.A"),
    ({"callback": {"url": URL, "headers": {"A": "€"}}}, "callback.headers.A"),
    ({"callback": {"url": URL, "headers": {"A": "x", "a": "y"}}}, "callback.headers"),
    ({"callback": {"url": URL, "headers": {f"A{n}": "x" for n in range(33)}}}, "callback.headers"),
    ({"callback": {"url": URL, "headers": {"A": "x" * 8192}}}, "callback.headers"),
    *(
        ({"callback": {"url": URL, "headers": {name: "x"}}}, f"callback.headers.{name}")
        for name in (
            "Accept-Encoding",
            "CE-Id",
            "ce-anything",
            "Connection",
            "Content-Encoding",
            "Content-Length",
            "Content-Type",
            "Content_Type",
            "Expect",
            "Host",
            "Keep-Alive",
            "Proxy-Authorization",
            "TE",
            "Trailer",
            "Transfer-Encoding",
            "Transfer_Encoding",
            "Upgrade",
            "user-agent",
            "Webhook-Id",
            "webhook-signature",
            "Webhook_Signature",
            "x-signature-256",
            "X_Signature-256",
        )
    ),
    ({"callback": {"url": URL, "events": ["orchestrator.job.exit", "exit"]}}, "callback.events[1]"),
    ({"callback": {"url": URL, "events": ["orchestrator.*"]}}, "callback.events[0]"),
    ({"callback": {"url": URL, "events": [{}]}}, "callback.events[0]"),
]


class TestRefusedJobs:
    @pytest.mark.parametrize(("members", "field"), REFUSED)
    def test_an_error_names_the_member_at_fault(self, members: dict[str, Any], field: str) -> None:
        assert refused_field(**members) == field

    def test_the_image_is_required(self, client: Client) -> None:
        expect_error(post_body(client, "{}"), 400, "image")

    def test_a_refused_job_is_not_stored(self, client: Client) -> None:
        expect_error(post_job(client, id="no", outputs=[{**UPLOAD, "url": "ftp://x"}]), 400, "outputs[0].url")
        assert not Job.objects.filter(id="no").exists()

    @pytest.mark.parametrize(
        "path", ["", "/", "/etc/passwd", ".", "./", "a/", "a/../b", "..", "a/..", "x" * 1025, "ä" * 513], ids=ascii
    )
    def test_invalid_paths_are_refused(self, path: str) -> None:
        assert refused_field(inputs=[{**FILE, "path": path}]) == "inputs[0].path"
        assert refused_field(outputs=[{**EVENT, "path": path}]) == "outputs[0].path"

    @pytest.mark.parametrize(
        "url",
        [
            "",
            "example.com",
            "ftp://example.com",
            "file:///etc/passwd",
            "http://",
            "http:///path",
            "http://:80/",
            "http://host:99999/",
            "http://host:0/",
            "http://host:x/",
            "http://[::1/",
            "http://[zz]/",
            "http://a b/",
            "http://a/\tb",
            "http://a/\n",
            "http://a\\@b/",
            "http://a..b/",
            "http://a%2fb/",
            "http://a\u2028/",
            "http://" + "a" * 64 + "." + "b" * 250 + "/",
            "http://a/" + "x" * 2040,
            "http://☕.example/",
            "http://１２７.0.0.1/",
            "http://127。0。0。1/",
            "http://example。com/",
            "http://[fe80::1%25eth0]/",
            "http://[fe80::1%eth0]/",
            "http://256.1.1.1/",
            "http://-a.example/",
        ],
        ids=ascii,
    )
    def test_invalid_urls_are_refused(self, url: str) -> None:
        assert refused_field(callback={"url": url}) == "callback.url"
        assert refused_field(inputs=[{**DOWNLOAD, "url": url}]) == "inputs[0].url"
        assert refused_field(outputs=[{**UPLOAD, "url": url}]) == "outputs[0].url"

    @pytest.mark.parametrize(
        "url",
        [
            *(
                "http://a",
                "HTTPS://user:pw@Example.com:8443/x?y=z#f",
                "http://[::1]:80/",
                "http://bücher.example/",
                "http://a_b./",
            ),
            *("http://a/../é?%zz", "http://faß.example/", "http://127.1/", "http://a/" + "x" * 2030, 'http://a?{"b"}'),
        ],
    )
    def test_valid_urls_are_accepted(self, url: str) -> None:
        assert read(callback={"url": url}).callback is not None

    @pytest.mark.parametrize(
        ("body", "field"),
        [
            (b" ", None),
            (b"{", None),
            (b"[]", None),
            (b"null", None),
            (b'"x"', None),
            (b'\xef\xbb\xbf{"image": "a"}', None),
            (b'{"image": "\xff"}', None),
            (b'{"cpu": NaN}', None),
            (b'{"cpu": -Infinity}', None),
            (b'{"cpu": 1e999}', None),
            (b'{"cpu": ' + b"9" * 5000 + b"}", None),
            (b"[" * 100_000, None),
            (b'{"a":' * 5_000 + b"1" + b"}" * 5_000, None),
            (b'{"meta": ' + b"[" * 20 + b"]" * 20 + b"}", None),
            (b'{"image": "a\\u0000"}', "image"),
            (b'{"meta": {"a": "\\ud800"}}', "meta.a"),
            (b'{"meta": {"\\udfff": "a"}}', "meta.\ufffd"),
            (b'{"unknown": ["\\u0000"]}', "unknown[0]"),
            (b'{"' + b"x" * 5000 + b'": 1}', "x" * 128 + "…"),
        ],
        ids=range(19),
    )
    def test_bodies_that_are_not_strict_json_are_refused(self, client: Client, body: bytes, field: str | None) -> None:
        expect_error(post_body(client, body), 400, field)

    @pytest.mark.parametrize(
        ("body", "name", "field"),
        [
            (b'{"": 1, "": 2}', '""', '""'),
            (b'{"meta": {"": 1, "": 2}}', '""', 'meta.""'),
            (b'{"inputs": [{}, {"url": 1, "url": 2}]}', '"url"', "inputs[1].url"),
            (b'{"\\u0000": 1, "\\u0000": 2}', '"\\u0000"', "\ufffd"),
            (b'{"%(name)b": 1, "%(name)b": 2}' % {b"name": b"x" * 5000}, f'"{"x" * 128}"', "x" * 128 + "…"),
        ],
        ids=["empty", "empty below", "in an item", "not storable", "long"],
    )
    def test_a_name_that_is_given_twice_is_named(self, client: Client, body: bytes, name: str, field: str) -> None:
        assert expect_error(post_body(client, body), 400, field) == f"the name {name} is given twice"

    @pytest.mark.parametrize(
        "content_type",
        ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin-1", "multipart/form-data"],
    )
    def test_other_media_types_are_415(self, client: Client, content_type: str) -> None:
        expect_error(post_body(client, b'{"image": "a"}', content_type), 415)

    def test_a_compressed_body_is_415(self, client: Client) -> None:
        expect_error(post_body(client, b"x", HTTP_CONTENT_ENCODING="gzip"), 415)

    def test_a_body_over_one_mebibyte_is_413(self, client: Client) -> None:
        expect_error(post_job(client, environment={"A": "x" * MAX_BODY_BYTES}), 413)

    def test_a_content_length_over_the_limit_is_refused_before_reading(self) -> None:
        # Given a request that announces too much, and a body that must not be read
        request = RequestFactory().post("/v1/jobs", content_type="application/json")
        request.META["CONTENT_LENGTH"] = str(MAX_BODY_BYTES + 1)
        request._stream = None  # type: ignore[attr-defined]
        # I expect an error
        with pytest.raises(ApiError) as refused:
            read_json(request, dict)
        assert refused.value.status == 413

    def test_errors_do_not_repeat_secrets(self, client: Client) -> None:
        canary = "canary-5c1f"
        for members in (
            {"environment": {"A": [canary]}},
            {"callback": {"url": f"ftp://host/?token={canary}"}},
            {"callback": {"url": URL, "key": f"whsec_{canary}"}},
            {"callback": {"url": URL, "key": ["a", f"whsec_{canary}"]}},
            {"callback": {"url": URL, "headers": {"A": f"{canary}\n"}}},
            {"inputs": [{**DOWNLOAD, "headers": {"A": f"{canary}\n"}}]},
            {"inputs": [{**FILE, "content": canary, "encoding": "base64"}]},
        ):
            answer = post_job(client, **members)
            assert answer.status_code == 400
            assert canary not in answer.content.decode()

    def test_query_parameters_are_refused(self, client: Client) -> None:
        expect_error(client.post("/v1/jobs?dry=1", data="{}", content_type="application/json"), 400, "dry")

    @pytest.mark.parametrize("error", [OperationalError, InterfaceError, InternalError])
    def test_an_unavailable_database_is_503(
        self, client: Client, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
    ) -> None:
        def away(*_: object) -> None:
            raise error("connection to server at secret-host failed")

        monkeypatch.setattr(services, "create", away)
        answer = post_job(client)
        assert "secret-host" not in expect_error(answer, 503)
        assert int(answer["Retry-After"]) > 0

    def test_an_unexpected_exception_is_500_without_details(
        self, client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def broken(*_: object) -> None:
            raise RuntimeError("canary")

        monkeypatch.setattr(services, "create", broken)
        assert "canary" not in expect_error(post_job(client), 500)
        assert "canary" in caplog.text  # but the log does


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
characters = st.characters(exclude_categories=("Cs",), exclude_characters="\0")
values = st.recursive(
    scalars | st.text(characters), lambda inner: st.lists(inner) | st.dictionaries(st.text(characters), inner), max_leaves=10
)


class TestStrictness:
    @given(value=values)
    def test_all_json_values_can_be_parsed(self, value: Any) -> None:
        assert parse_json(json.dumps(value).encode()) == value

    @given(value=values, bad=st.sampled_from(["\0", "\ud800", "\udfff"]), text=st.text(characters), as_name=st.booleans())
    def test_characters_that_cannot_be_stored_are_refused_everywhere(
        self, value: Any, bad: str, text: str, as_name: bool
    ) -> None:
        with pytest.raises(InvalidRequest):
            parse_json(json.dumps({"a": [value, {text + bad: 1} if as_name else bad + text]}).encode())

    @given(body=st.binary())
    def test_any_bytes_are_parsed_or_refused(self, body: bytes) -> None:
        with suppress(InvalidRequest):
            NewJob.read(parse_json(body))

    @given(value=values)
    def test_any_value_of_a_member_is_accepted_or_refused(self, value: Any) -> None:
        names = ("id", "image", "command", "cpu", "memory", "environment", "meta", "workspace", "inputs", "outputs", "callback")
        for name in names:
            with suppress(InvalidRequest):
                read(**{name: value})

    @given(path=st.text(st.sampled_from("a./\\ é\n"), max_size=12))
    def test_an_accepted_path_stays_below_the_workspace(self, path: str) -> None:
        try:
            taken = file_path(path)
        except ValidationError:
            return
        parts = taken.split("/")
        assert parts == list(PurePosixPath(path).parts)
        assert not {"", ".", ".."} & set(parts)
        assert file_path(taken) == taken

    @given(url=st.from_regex(r"https?://[\w.:@\[\]\\/?#%\s-]{0,30}", fullmatch=True))
    def test_an_accepted_url_has_a_host_and_a_port(self, url: str) -> None:
        try:
            taken = Url().run_validation(url)
        except ValidationError:
            return
        parts = urlsplit(taken)
        assert parts.hostname
        assert parts.port != 0
        assert not any(character.isspace() for character in taken)
