"""The command line is split into options, the image and the command; what belongs to neither is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator_site.client.errors import UsageError
from orchestrator_site.client.options.arguments import parse

pytestmark = pytest.mark.stateless

PROG = "bin/run"


@given(words=st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=5))
def test_what_follows_two_hyphens_is_the_command_whatever_it_looks_like(words: list[str]) -> None:
    options = parse(PROG, ["--cpu", "2", "alpine", "--", *words])

    assert (options.image, options.command, options.cpu) == ("alpine", words, 2)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--follow", "--input", "a=b", "alpine", "cat", "a"],
        ["alpine", "cat", "a", "--input", "a=b", "--follow"],
        ["alpine", "--input=a=b", "cat", "a", "--follow"],
        ["--follow", "--input", "a=b", "--", "alpine", "cat", "a"],
    ],
)
def test_options_may_come_before_and_after_the_command(arguments: list[str]) -> None:
    options = parse(PROG, arguments)

    assert (options.image, options.command, options.follow) == ("alpine", ["cat", "a"], True)
    assert [(option.path, option.other) for option in options.input] == [("a", "b")]


def test_repeated_options_are_collected_for_each_command_line_alone() -> None:
    assert parse(PROG, ["--env", "A=1", "--env", "B", "alpine"]).env == [("A", "1"), ("B", None)]
    assert parse(PROG, ["alpine"]).env == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["alpine", "ls", "-l"], "-l is not an option of bin/run; if it is the command's, put -- before the command"),
        (["--follows", "alpine"], "--follows is not an option"),
        (["--fol", "alpine"], "--fol is not an option"),
        (["--follow"], "an image is required"),
        (["--cpu", "none", "alpine"], "must be a number of cores"),
        (["--input", "file.txt", "alpine"], "must be PATH=FILE or PATH=URL"),
        (["--detach", "--follow", "alpine"], "--detach cannot be used with --follow"),
        (["--detach", "--output", "a=b", "alpine"], "--detach cannot be used with"),
        (["--network", "\x1b[2Jhost", "alpine"], "invalid choice"),
        (["--cpu", "0", "alpine"], "--cpu: must be"),
        (["--json", "list"], "list must be the first word if it is the command, as in bin/run list"),
        (["logs"], "required: ID"),
        (["list", "--limit", "0"], "must be a whole number above 0"),
    ],
)
def test_a_wrong_command_line_is_refused_in_a_sentence(arguments: list[str], message: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse(PROG, arguments)

    assert message in str(refused.value)
    assert not str(refused.value).startswith("argument")
    assert str(refused.value).isprintable()


def test_the_value_of_an_option_that_does_not_exist_is_not_shown() -> None:
    with pytest.raises(UsageError, match=r"^--tokne is not an option") as refused:
        parse(PROG, ["--tokne=the-secret", "alpine"])

    assert "the-secret" not in str(refused.value)


@pytest.mark.parametrize("command", ["logs", "status", "cancel"])
def test_the_first_word_may_be_a_command_for_a_job(command: str) -> None:
    options = parse(PROG, [command, "hello"])

    assert options.action == command
    assert "hello" in options.id


def test_an_image_with_the_name_of_a_command_can_have_a_tag() -> None:
    assert parse(PROG, ["logs:latest"]).image == "logs:latest"


@pytest.mark.parametrize("arguments", [[], ["--help"], ["logs", "--help"], ["list", "--help"]])
def test_help_is_printed(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        parse(PROG, arguments)

    assert done.value.code == 0
    assert "bin/run" in capsys.readouterr().out
