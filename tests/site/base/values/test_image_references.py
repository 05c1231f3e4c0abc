"""Image references: one grammar, for requests and for engines."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rest_framework.serializers import ValidationError

from jobs.api import fields
from jobs.engine.docker import DockerEngine
from jobs.engine.pullable_reference import parse_reference
from jobs.errors import ImageUnavailable
from jobs.interrupt import Interrupt
from orchestrator_site.base.values.image_references import MalformedReference, read_reference

pytestmark = pytest.mark.stateless

DIGEST = "sha256:" + "0123456789abcdef" * 4

# The published grammar in one expression, with the restrictions of Docker 20.10.
_LABEL = "(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_COMPONENT = "[a-z0-9]+(?:(?:[._]|__|[-]+)[a-z0-9]+)*"
STATED = re.compile(
    rf"(?:(?P<domain>{_LABEL}(?:\.{_LABEL})*(?::[0-9]+)?)/)?(?P<path>{_COMPONENT}(?:/{_COMPONENT})*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?"
    r"(?:@(?P<digest>sha256:[a-f0-9]{64}|sha384:[a-f0-9]{96}|sha512:[a-f0-9]{128}))?"
)


def normalized(text: str) -> str:
    """Add the registry and the `library/` of Docker Hub, as an engine does first."""
    first, slash, rest = text.partition("/")
    if not slash or not (first == "localhost" or re.search(r"[.:]", first)):
        first, rest = "docker.io", text
    if first == "index.docker.io":
        first = "docker.io"
    if first == "docker.io" and "/" not in rest.partition("@")[0]:
        rest = f"library/{rest}"
    return f"{first}/{rest}"


def is_stated(text: str) -> bool:
    if re.fullmatch(r"(?:sha256:)?[a-f0-9]{64}|sha384:[a-f0-9]{96}|sha512:[a-f0-9]{128}", text):
        return False
    match = STATED.fullmatch(normalized(text))
    return match is not None and match["domain"] is not None and len(f"{match['domain']}/{match['path']}") <= 255


def is_read(text: str) -> bool:
    try:
        read_reference(text)
    except MalformedReference:
        return False
    return True


pieces = st.sampled_from(
    ["a", "b1", "A", "localhost", "docker.io", "index.docker.io", "library", "x.example", ":", "/", "@", ".", "_", "-", "--",
     "5000", "[::1]", "latest", DIGEST, "sha512:" + "a" * 128, "é", " ", "\n", "a" * 120, "-a", "sha256"]
)  # fmt: skip
texts = st.lists(pieces, max_size=9).map("".join) | st.text(alphabet="aA0:/@._-[]\n ", max_size=12) | st.text(max_size=20)


@settings(max_examples=800)
@given(texts)
def test_references_follow_the_published_grammar(text: str) -> None:
    assert is_read(text) == is_stated(text)


@settings(max_examples=500)
@given(texts)
def test_the_api_and_engines_accept_the_same_references(text: str) -> None:
    accepted = True
    try:
        fields.image(text)
    except ValidationError:
        accepted = False
    try:
        reference = parse_reference(text)
    except ImageUnavailable:
        assert not accepted
        return

    assert accepted or len(text) > 512
    assert parse_reference(reference.text) == reference


@pytest.mark.parametrize(
    "text",
    [
        "[::1]:1/x:y",
        "[::1]/x",
        "Team/alpine",
        "LOCALHOST/x",
        "a" * 238,  # too long with `docker.io/library/`
        "localhost/" + "a" * 246,
        "x:" + "t" * 129,
        "f" * 64,
        f"{DIGEST}",
        f"x@{DIGEST.upper()}",
        "x@sha256:" + "a" * 63,
        "x@md5:" + "a" * 32,
        "x@",
        "x:",
        f"x@{DIGEST}:y",
        "a___b",
        "a.-b",
        "a-/x",
        "host:/x",
        "h_o.st/x",
    ],
)
def test_a_reference_that_engines_refuse_is_refused_by_the_api(text: str) -> None:
    with pytest.raises(ValidationError):
        fields.image(text)


@pytest.mark.engine
@pytest.mark.parametrize(
    "text", ["a" * 237, "localhost/" + "a" * 245, "x:" + "t" * 128, f"x:y@{DIGEST}", "a__b", "1.2.3.4:099/x"]
)
def test_an_accepted_reference_is_valid_for_an_engine(docker_host: str, text: str) -> None:
    # I expect the engine to have no such image, not to refuse the reference
    with pytest.raises(ImageUnavailable, match="not on the engine"):
        DockerEngine(docker_host).ensure_image(text, "never", 10, Interrupt())


@pytest.mark.parametrize("piece", ["a", "a-", "-", "a.", "a/", "a_", ":", "1", "a:1/", "@"])
@pytest.mark.parametrize("times", [500, 5_000_000])
def test_a_long_text_is_refused_at_once(piece: str, times: int) -> None:
    assert not is_read(piece * times)
