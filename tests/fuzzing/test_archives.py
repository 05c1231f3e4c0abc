"""Hostile archives in place of the outputs of jobs."""

import pytest

from tests.fuzzing import archives, campaign


@pytest.mark.stateless
def test_hostile_archives_are_refused() -> None:
    assert not campaign.run("archives", archives.attack, inputs=250).errors
