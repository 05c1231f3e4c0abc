"""The body of `POST /v1/jobs` is what the options say, and the API accepts it."""

import json
import os
import threading
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.api.new_job import NewJob
from orchestrator_site.client.errors import ClientError, UsageError
from orchestrator_site.client.options.arguments import parse
from orchestrator_site.client.options.job_request import MAX_BODY, encoded, job_of, option_for

pytestmark = pytest.mark.stateless


def job(*arguments: str, **environment: str) -> dict[str, Any]:
    return job_of(parse("bin/run", arguments), environment, lambda option: f"http://127.0.0.1:1/{option.path}")


def test_only_what_is_given_is_sent() -> None:
    members = job("alpine")

    assert members.keys() == {"id", "image"}
    assert NewJob.read(members).image == "alpine"


def test_every_option_arrives_in_the_job(tmp_path: Path) -> None:
    # Given all options
    (tmp_path / "in").write_text("text")
    arguments = [
        *("--id", "hello", "--cpu", "0.5", "--memory", "1GiB", "--timeout", "15m", "--network", "none", "--pull", "never"),
        *("--env", "A=1", "--env", "B", "--meta", "team=reports"),
        *("--input", f"a={tmp_path / 'in'}", "--input", "b=https://example.com/b"),
        *("--output", "c=https://example.com/c", "--output", f"d={tmp_path / 'out'}"),
        *("alpine", "--", "ls", "-l"),
    ]

    # I expect the job that the API's documentation shows
    members = job(*arguments, B="2")
    assert members == {
        "id": "hello",
        "image": "alpine",
        "command": ["ls", "-l"],
        "cpu": 0.5,
        "memory": 1024,
        "timeoutSeconds": 900,
        "environment": {"A": "1", "B": "2"},
        "meta": {"team": "reports"},
        "network": "none",
        "pullPolicy": "never",
        "inputs": [
            {"type": "file", "path": "a", "content": "text"},
            {"type": "download", "path": "b", "url": "https://example.com/b"},
        ],
        "outputs": [
            {"type": "upload", "path": "c", "url": "https://example.com/c"},
            {"type": "upload", "path": "d", "url": "http://127.0.0.1:1/d"},
        ],
    }
    assert NewJob.read(json.loads(encoded(members))).image == "alpine"


@given(content=st.binary(max_size=200) | st.text(st.characters(exclude_categories=["Cs"])).map(str.encode))
def test_a_file_arrives_byte_for_byte(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.getbasetemp() / "content"
    file.write_bytes(content)

    [sent] = job("--input", f"a={file}", "alpine")["inputs"]

    assert (b64decode(sent["content"]) if "encoding" in sent else sent["content"].encode()) == content
    assert NewJob.read({"image": "alpine", "inputs": [sent]}).image == "alpine"


def test_a_program_stays_executable(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh")
    program.chmod(0o755)

    assert job("--input", f"a={program}", "alpine")["inputs"][0]["mode"] == "0755"


def test_a_file_that_is_too_big_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    big = tmp_path / "big"
    with big.open("wb") as file:
        file.truncate(MAX_BODY + 1)

    with pytest.raises(ClientError, match=r"^--input a=.*big: the file is too big: .* give its URL$"):
        job("--input", f"a={big}", "alpine")


def test_files_that_are_too_big_together_are_refused(tmp_path: Path) -> None:
    # Given two files, each of which a request can have
    half = tmp_path / "half"
    half.write_text("x" * (MAX_BODY // 2))

    # I expect their request to be refused because of its size
    with pytest.raises(ClientError, match=r"^the job is too big: 1\.0 MiB"):
        encoded(job("--input", f"a={half}", "--input", f"b={half}", "alpine"))


def test_no_more_of_an_endless_file_is_read_than_fits() -> None:
    # Given a pipe from which a byte more comes than fits, and then nothing
    reading, writing = os.pipe()
    with open(reading, "rb"), open(writing, "wb") as pipe:
        threading.Thread(target=pipe.write, args=[bytes(MAX_BODY + 1)]).start()

        # I expect an error without waiting for more
        with pytest.raises(ClientError, match=r"too big"):
            job("--input", f"a=/dev/fd/{reading}", "alpine")


@pytest.mark.parametrize("name", ["/nonexistent/file", "/", "a\0b"])
def test_a_file_that_cannot_be_read_is_named(name: str) -> None:
    with pytest.raises(ClientError, match=r"^--input a=.*: cannot read the file \("):
        job("--input", f"a={name}", "alpine")


def test_a_variable_that_is_not_set_is_an_error() -> None:
    with pytest.raises(UsageError, match=r"^--env: TOKEN is not set"):
        job("--env", "TOKEN", "alpine")


def test_what_is_not_unicode_is_refused() -> None:
    with pytest.raises(ClientError, match=r"not valid UTF-8"):
        encoded(job("alpine", "echo", os.fsdecode(b"\xff")))


@pytest.mark.parametrize(
    ("field", "option"),
    [
        ("timeoutSeconds", "--timeout"),
        ("environment.A", "--env A"),
        ("inputs[0].path", "--input ../a=/dev/null"),
        ("inputs[7].path", "inputs[7].path"),
        ("command[1]", "COMMAND"),
        ("callback.url", "callback"),
    ],
)
def test_an_error_names_the_option_that_caused_it(field: str, option: str) -> None:
    options = parse("bin/run", ["--input", "../a=/dev/null", "--env", "A=1", "alpine"])

    assert option_for(field, options).startswith(option)
