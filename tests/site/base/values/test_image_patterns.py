"""The patterns of IMAGES_ALLOW: which images may run."""

from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator_site.base.values.image_patterns import is_allowed, read_pattern
from orchestrator_site.base.values.image_references import read_reference

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


# -- for all references -----------------------------------------------------------------------------------

COMPONENTS = st.from_regex(r"[a-z0-9]{1,6}([._-][a-z0-9]{1,4})?", fullmatch=True)
REGISTRIES = st.from_regex(r"[a-z0-9]{1,6}(-[a-z0-9]{1,3})?\.(example|corp)(:[0-9]{1,5})?", fullmatch=True)
TAGS = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,10}", fullmatch=True)
NAMES = st.lists(COMPONENTS, min_size=1, max_size=3).map("/".join)
RESTS = st.sampled_from(["", f"@{DIGEST}"]) | TAGS.map(lambda tag: f":{tag}")
ANYWHERE = ("*", "*/*", "*.*/*", "*:*/*", "localhost/*")  # together: every image of every registry


@st.composite
def references(draw: st.DrawFn) -> tuple[str, str]:
    """Return the name and the rest of a valid reference."""
    name = draw(NAMES)
    if draw(st.booleans()):
        name = f"{draw(REGISTRIES)}/{name}"
    return name, draw(RESTS)


def spellings(name: str) -> list[str]:
    """Return all names of the same image."""
    first, slash, _ = name.partition("/")
    if slash and ("." in first or ":" in first):
        return [name]
    official = [] if slash else [f"library/{name}"]
    return [start + path for path in (name, *official) for start in ("", "docker.io/", "index.docker.io/")]


@given(references())
def test_a_reference_is_a_pattern_that_matches_all_its_spellings(reference: tuple[str, str]) -> None:
    name, rest = reference
    for pattern in spellings(name):
        for image in spellings(name):
            assert allows(pattern, image + rest)
            assert allows(pattern + rest, image + rest)
            assert not allows(pattern + rest, f"{image}x{rest}")


@given(references(), references())
def test_a_pattern_without_a_star_matches_one_image(one: tuple[str, str], other: tuple[str, str]) -> None:
    same = other[0] in spellings(one[0]) or bool(set(spellings(one[0])) & set(spellings(other[0])))

    assert allows(one[0], "".join(other)) is same


@given(references(), st.data())
def test_the_case_of_a_name_matters(reference: tuple[str, str], data: st.DataObject) -> None:
    name, rest = reference
    letters = [index for index, letter in enumerate(name) if letter.isalpha()]
    if letters:
        index = data.draw(st.sampled_from(letters))
        assert not allows(name, name[:index] + name[index].upper() + name[index + 1 :] + rest)


@given(references(), st.characters(min_codepoint=128), st.data())
def test_no_pattern_matches_letters_that_only_look_alike(reference: tuple[str, str], letter: str, data: st.DataObject) -> None:
    text = "".join(reference)
    index = data.draw(st.integers(0, len(text)))
    image = text[:index] + letter + text[index:]

    assert not is_allowed(image, [read_pattern(pattern) for pattern in ANYWHERE])


@given(st.text(max_size=40) | st.text(alphabet="ab*:/@.-_ \n\x00AZ0", max_size=40), references())
def test_any_text_is_a_pattern_or_refused(text: str, reference: tuple[str, str]) -> None:
    try:
        pattern = read_pattern(text)
    except ValueError:
        return
    pattern.matches(read_reference("".join(reference)))
    assert is_allowed("".join(reference), [read_pattern(pattern) for pattern in ANYWHERE])


@given(st.text(max_size=60) | st.text(alphabet="ab:/@.-_ \n\x00AZ0", max_size=60))
def test_any_text_may_be_asked_about(text: str) -> None:
    allowed = is_allowed(text, [read_pattern(pattern) for pattern in ANYWHERE])

    assert not allowed or read_reference(text)


def test_without_patterns_every_image_may_run() -> None:
    assert is_allowed("anything/at:all", ())
