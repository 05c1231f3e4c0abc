"""The patterns of IMAGES_ALLOW: which images may run."""

from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator_site.base.values.image_patterns import is_allowed, read_pattern

pytestmark = pytest.mark.stateless

DIGEST = "sha256:" + "0123456789abcdef" * 4


def allows(pattern: str, image: str) -> bool:
    return is_allowed(image, (read_pattern(pattern),))


SAME = [f"{start}python:3.12" for start in ("", "library/", "docker.io/", "docker.io/library/", "index.docker.io/")]


@pytest.mark.parametrize("pattern", SAME)
@pytest.mark.parametrize("image", SAME)
def test_all_spellings_of_an_image_and_a_pattern_match(pattern: str, image: str) -> None:
    assert allows(pattern, image)
    assert not allows(pattern, f"{image}1")


@pytest.mark.parametrize(
    ("pattern", "image", "expected"),
    [
        ("python:3.*", "python:3.12-slim", True),
        ("python:3.*", "python:3.", True),
        ("python:3.*", "python:2.7", False),
        ("python:3.*", "python", False),
        ("python:latest", "python", True),
        ("python:3.*", "team/python:3.12", False),
        ("python:3.*", "registry.example/library/python:3.12", False),
        ("python:3.*", f"python@{DIGEST}", False),
        ("python:3.*", f"python:3.12@{DIGEST}", False),  # the engine uses the digest and ignores the tag
        ("python", f"python:3.12@{DIGEST}", True),
        ("python", "python:3.12", True),
        (f"python@{DIGEST}", f"python:3.12@{DIGEST}", True),
        (f"python@{DIGEST}", f"python@{DIGEST[:-1]}0", False),
        (f"python@{DIGEST}", "python:3.12", False),
        ("python@*", f"python@{DIGEST}", True),
        ("python@*", "python:3.12", False),
        ("registry.example/team/*", "registry.example/team/app:1", True),
        ("registry.example/team/*", "registry.example/team/deep/er/app", True),
        ("registry.example/team/*", "registry.example/teams/app", False),
        ("registry.example/team/*", "registry.example/team", False),
        ("registry.example/team/*", "registry.example:5000/team/app", False),
        ("registry.example/team/*", "evil.example/registry.example/team/app", False),
        ("registry.example:5000/*", "registry.example:5000/a/b@" + DIGEST, True),
        ("*.corp.example/*", "a.b.corp.example/x", True),
        ("*.corp.example/*", "corp.example/x", False),
        ("*.corp.example/*", "evil.example/.corp.example/x", False),
        ("*", "alpine", True),
        ("*", "team/alpine", False),
        ("*/*", "team/alpine", True),
        ("*/*", "registry.example/team/alpine", False),
        ("a*b*c", "abc", True),
        ("a*b*c", "ac", False),
        ("a*ba", "aba", True),
        ("a*aa", "aa", False),
    ],
)
def test_a_star_matches_any_characters_of_its_part(pattern: str, image: str, expected: bool) -> None:
    assert allows(pattern, image) is expected


@given(st.text(alphabet="ab*", min_size=1, max_size=8), st.text(alphabet="ab", min_size=1, max_size=10))
def test_a_star_matches_as_in_a_shell(pattern: str, name: str) -> None:
    assert allows(f"x/{pattern}", f"x/{name}") == fnmatchcase(name, pattern)


def test_many_stars_need_little_time() -> None:
    assert not allows("x/" + "a*" * 100 + "b", "x/" + "a" * 250)


@pytest.mark.parametrize(
    "text",
    ["", "a b", "UPPER/*", "x:*:y", f"x:1@{DIGEST}", "x@sha256:?", "[::1]/*", "http://x/*", "registry.example/", "*/", "x:-*"],
)
def test_an_invalid_pattern_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        read_pattern(text)


def test_without_patterns_every_image_may_run() -> None:
    assert is_allowed("anything/at:all", ())
