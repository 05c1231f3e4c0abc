"""Hostile logs of an engine."""

import pytest

from tests.fuzzing import campaign, logs


@pytest.mark.stateless
def test_hostile_logs_are_read_the_same_or_refused() -> None:
    assert not campaign.run("logs", logs.attack, inputs=200).errors
