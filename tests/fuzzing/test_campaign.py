"""A campaign finds errors and growth, and tries an input again."""

from random import Random

import pytest

from tests.fuzzing import campaign
from tests.fuzzing.campaign import Figures, Resources

pytestmark = pytest.mark.stateless


def refuse_sixes(random: Random) -> None:
    number = random.randrange(10)
    assert number != 6, "a six"


def test_an_error_names_an_input_that_finds_it_again() -> None:
    # Given a campaign that finds errors
    found = campaign.run("sixes", refuse_sixes, seed="s", inputs=100)
    assert 0 < found.failed == len(found.errors) < 100

    # When the input of one is tried again, I expect the same error
    number = int(found.errors[-1].removeprefix("sixes, input ").partition(":")[0])
    assert campaign.run("sixes", refuse_sixes, seed="s", first=number, inputs=1).errors == found.errors[-1:]


def test_what_a_process_keeps_is_a_problem() -> None:
    before = Resources(memory=100 * 1024**2, threads=5, files=10)
    for after, problems in (
        (Resources(110 * 1024**2, 6, 9), []),
        (Resources(200 * 1024**2, 5, 10), ["memory grew by 104857600"]),
        (Resources(100 * 1024**2, 50, 100), ["threads grew by 45", "files grew by 90"]),
    ):
        assert Figures("x", "s", before=before, after=after).problems == problems
