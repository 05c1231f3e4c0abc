"""Colors of printed lines are read, and nothing else that a terminal would obey."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.admin.ansi import PLAIN, STATE_PATTERN, read_line

pytestmark = pytest.mark.stateless

PIECES = [
    "\x1b",
    "\x1b[",
    "\x1b[31m",
    "\x1b[0m",
    "\x1b[38;5;",
    "\x1b[38;2;1;2;3m",
    "\x1b[2J",
    "\x1b]0;title\x07",
    "\x1b]8;;javascript:alert(1)\x1b\\",
    "\x1bP",
    "\x9b31m",
    "<script>",
    "\r",
    "\b",
    "\0",
    "\u202e",
    "text",
    "é",
]
FLAGS = {"bold", "dim", "italic", "underline", "inverse", "strike"}
printed = st.lists(st.sampled_from(PIECES) | st.text(max_size=5), max_size=20).map("".join)


def shown(text: str) -> list[tuple[str, str]]:
    """Return each piece of a line, and its style as SGR parameters."""
    return [(run.text, run.style.state) for run in read_line(text, PLAIN)[0]]


def plain(text: str) -> str:
    return "".join(run.text for run in read_line(text, PLAIN)[0])


@pytest.mark.parametrize(
    ("printed", "runs"),
    [
        ("nothing special", [("nothing special", "")]),
        ("\x1b[31mred\x1b[0m and \x1b[1mbold\x1b[m", [("red", "38;5;1"), (" and ", ""), ("bold", "1")]),
        ("\x1b[1;34mboth\x1b[22m one \x1b[39mnone", [("both", "1;38;5;4"), (" one ", "38;5;4"), ("none", "")]),
        ("\x1b[97;100mbright", [("bright", "38;5;15;48;5;8")]),
        ("\x1b[38;5;208mone of 256", [("one of 256", "38;2;255;135;0")]),
        ("\x1b[38;5;244mgray", [("gray", "38;2;128;128;128")]),
        ("\x1b[48;2;1;2;300mtrue color", [("true color", "48;2;1;2;255")]),
        ("\x1b[38:2::1:2:3mcolons\x1b[4:3m curly", [("colons", "38;2;1;2;3"), (" curly", "4;38;2;1;2;3")]),
        ("\x1b[38;5;999munknown", [("unknown", "")]),
        ("\x1b[38mincomplete\x1b[99;5;58munknown", [("incompleteunknown", "")]),
        ("\x1b[7;9;3;2;4mall\x1b[27;29;23;22;24mnone", [("all", "2;7;3;9;4"), ("none", "")]),
    ],
)
def test_colors_and_weights_are_read(printed: str, runs: list[tuple[str, str]]) -> None:
    found = shown(printed)
    assert [text for text, _ in found] == [text for text, _ in runs]
    assert [set(state.split(";")) for _, state in found] == [set(state.split(";")) for _, state in runs]


@pytest.mark.parametrize(
    "sequence",
    [
        "\x1b[2J",
        "\x1b[10;20H",
        "\x1b[?25l",
        "\x1b[>4;2m",
        "\x1b]0;a title\x07",
        "\x1b]8;;https://example.com\x1b\\",
        "\x1bPq device control\x1b\\",
        "\x1b_application\x1b\\",
        "\x1b(B",
        "\x1bc",
        "\x1b7",
    ],
)
def test_other_sequences_are_removed(sequence: str) -> None:
    assert shown(f"before{sequence}after") == [("beforeafter", "")]


@pytest.mark.parametrize("sequence", ["\x1b", "\x1b[", "\x1b[31", "\x1b]0;title", "\x1b]0;title\x1b", "\x1b("])
def test_an_unfinished_sequence_hides_no_text_before_it(sequence: str) -> None:
    assert plain(f"before{sequence}").startswith("before")


def test_a_progress_bar_is_shown_as_a_terminal_leaves_it() -> None:
    assert plain(" 10 %\r 50 %\r100 %") == "100 %"
    assert plain("100 %\r") == "100 %"  # with a line feed of Windows
    assert shown("\x1b[31mold\r\x1b[32mnew") == [("new", "38;5;2")]


@pytest.mark.parametrize("end", ["\r", "\r\r", "\r\x1b[0m", "\r\x1b[K", "\x1b[0m\r\x1b[31m\r"])
def test_a_carriage_return_without_text_after_it_hides_nothing(end: str) -> None:
    assert plain(f" 50 %\r100 %{end}") == "100 %"


def test_other_control_characters_are_visible() -> None:
    assert plain("a\0b\x08c\x7fd\x9be\tf") == "a␀b␈c␡d�e\tf"


def test_a_style_goes_on_in_the_next_line() -> None:
    # Given the end of a line
    _, style = read_line("\x1b[1;31;48;2;1;2;3mfirst", PLAIN)

    # When its state is sent to the page and back
    restored = PLAIN.after(style.state)

    # I expect the same style
    assert restored == style
    assert read_line("second", restored)[0][0].style == style


@given(printed, printed)
def test_whatever_is_printed_becomes_text_and_known_styles(first: str, second: str) -> None:
    style = PLAIN
    for line in (first, second):
        runs, style = read_line(line, style)
        for run in runs:
            assert run.text
            assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", run.text)
            assert run.style.flags <= FLAGS
            for color in (run.style.foreground, run.style.background):
                assert color is None or re.fullmatch(r"#[0-9a-f]{6}|[0-9]|1[0-5]", color.name)
        assert re.fullmatch(STATE_PATTERN, style.state)
        assert PLAIN.after(style.state) == style


@given(st.text(alphabet=st.characters(exclude_categories=["Cc", "Cs"])))
def test_text_without_control_characters_is_not_changed(text: str) -> None:
    assert plain(text) == text


@given(st.from_regex(STATE_PATTERN, fullmatch=True))
def test_any_state_that_a_request_may_have_is_a_style(state: str) -> None:
    assert re.fullmatch(STATE_PATTERN, PLAIN.after(state).state)
