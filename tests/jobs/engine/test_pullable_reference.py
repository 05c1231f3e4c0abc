"""Image references as they are sent to an engine."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.engine.pullable_reference import parse_reference
from jobs.errors import ImageUnavailable

pytestmark = pytest.mark.stateless

DIGEST = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("given_text", "text", "host"),
    [
        ("alpine", "alpine:latest", "docker.io"),
        ("alpine:3.20", "alpine:3.20", "docker.io"),
        ("user/image", "user/image:latest", "docker.io"),
        ("docker.io/library/alpine", "docker.io/library/alpine:latest", "docker.io"),
        ("localhost/image", "localhost/image:latest", "localhost"),
        ("localhost:5000/image", "localhost:5000/image:latest", "localhost:5000"),
        ("registry.example.com/a/b_c/d-e:v1", "registry.example.com/a/b_c/d-e:v1", "registry.example.com"),
        ("index.docker.io/user/image", "index.docker.io/user/image:latest", "docker.io"),
        (f"image@{DIGEST}", f"image@{DIGEST}", "docker.io"),
        (f"host:1/image:tag@{DIGEST}", f"host:1/image@{DIGEST}", "host:1"),
        ("cafe", "cafe:latest", "docker.io"),
    ],
)
def test_references_are_read_as_docker_reads_them(given_text: str, text: str, host: str) -> None:
    reference = parse_reference(given_text)

    assert (reference.text, reference.registry) == (text, host)


@pytest.mark.parametrize(
    "text",
    ["", " ", "UPPER", "a b", "image:", "image:-tag", ":tag", "/image", "image/", "a//b", "http://host/image", "image@sha256:12",
     "image\n", "image:tag\n", "../etc", "a" * 256, "image:" + "t" * 129, "host:port/image", "é", "a..b", "-a", "?x=y", "a%2fb"],
)  # fmt: skip
def test_malformed_references_are_refused(text: str) -> None:
    with pytest.raises(ImageUnavailable, match="is not an image reference"):
        parse_reference(text)


@given(st.text(max_size=40))
def test_no_reference_means_all_tags(text: str) -> None:
    try:
        reference = parse_reference(text)
    except ImageUnavailable:
        return
    assert parse_reference(reference.text) == reference
    assert ":" in reference.text
