"""Values of options are read exactly, or refused with what is expected."""

from argparse import ArgumentTypeError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator_site.client.options import option_values
from orchestrator_site.client.options.option_values import FileOption

pytestmark = pytest.mark.stateless

NAMES = st.text(st.characters(exclude_characters="=", exclude_categories=["Cs"]), min_size=1)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
READERS = [
    option_values.file_option,
    option_values.pair,
    option_values.variable,
    option_values.cores,
    option_values.mebibytes,
    option_values.seconds,
    option_values.positive,
]


@given(name=NAMES, value=TEXTS)
def test_a_pair_is_split_at_its_first_equals_sign(name: str, value: str) -> None:
    assert option_values.pair(f"{name}={value}") == (name, value)
    assert option_values.variable(f"{name}={value}") == (name, value)


@given(path=NAMES, other=TEXTS.filter(bool))
def test_a_file_is_split_at_its_first_equals_sign(path: str, other: str) -> None:
    assert option_values.file_option(f"{path}={other}") == FileOption(path, other)


@given(name=NAMES)
def test_a_variable_without_a_value_takes_that_of_the_environment(name: str) -> None:
    assert option_values.variable(name) == (name, None)
    assert option_values.environment_of([(name, None)], {name: "here"}) == {name: "here"}


@given(number=st.integers(1, 10**6))
def test_sizes_are_whole_mebibytes(number: int) -> None:
    assert option_values.mebibytes(str(number)) == number
    assert option_values.mebibytes(f"{number}MiB") == number
    assert option_values.mebibytes(f"{number}GiB") == number * 1024
    assert option_values.mebibytes(f"{number * 1024}KiB") == number


@given(number=st.integers(1, 10**6))
def test_durations_are_whole_seconds(number: int) -> None:
    assert option_values.seconds(str(number)) == number
    assert option_values.seconds(f"{number}s") == number
    assert option_values.seconds(f"{number}m") == number * 60


@given(number=st.decimals(min_value="0.01", max_value=64, places=2))
def test_cores_may_have_decimals(number: object) -> None:
    assert option_values.cores(str(number)) == float(str(number))


@given(text=TEXTS)
def test_any_text_is_read_or_refused_in_a_sentence(text: str) -> None:
    for read in READERS:
        try:
            read(text)
        except ArgumentTypeError as error:
            assert str(error).startswith("must be ")  # noqa: PT017


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "1e3", "١", "1_0", "", " 1"])
def test_what_is_not_a_number_of_cores_is_refused(text: str) -> None:
    with pytest.raises(ArgumentTypeError):
        option_values.cores(text)


@pytest.mark.parametrize("text", ["0", "1500KiB", "0MiB", "1MB", "1.5GiB", "-1"])
def test_what_is_not_whole_mebibytes_is_refused(text: str) -> None:
    with pytest.raises(ArgumentTypeError):
        option_values.mebibytes(text)


@pytest.mark.parametrize("text", ["0", "500ms", "1.5s", "90 s", "-1s", f"{'9' * 400}s"])
def test_what_is_not_whole_seconds_is_refused(text: str) -> None:
    with pytest.raises(ArgumentTypeError):
        option_values.seconds(text)


@pytest.mark.parametrize(
    ("words", "command"),
    [
        ([], None),
        (["ls"], ["ls"]),
        (["/bin/true"], ["/bin/true"]),
        (["echo hello; exit 3"], "echo hello; exit 3"),
        (["$HOME/run"], "$HOME/run"),
        (["ls", "-l", "a b"], ["ls", "-l", "a b"]),
    ],
)
def test_one_argument_runs_in_a_shell_if_it_needs_one(words: list[str], command: object) -> None:
    assert option_values.command_of(words) == command


def test_the_signature_of_a_url_is_not_shown() -> None:
    assert "secret" not in str(option_values.file_option("a=https://example.com/a?sig=secret"))


@pytest.mark.parametrize("variables", [[("A", "1"), ("A", "2")], [("A", None)]])
def test_a_variable_that_comes_twice_or_is_not_set_is_refused(variables: list[tuple[str, str | None]]) -> None:
    with pytest.raises(ValueError, match=r"^A is "):
        option_values.environment_of(variables, {})
