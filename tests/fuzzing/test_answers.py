"""Hostile answers of callback and download hosts."""

from pathlib import Path

import pytest

from tests.fuzzing import campaign
from tests.fuzzing.answers import AnswerAttack, hostile_server


@pytest.mark.stateless
def test_hostile_answers_end_in_time(tmp_path: Path) -> None:
    with hostile_server() as server:
        found = campaign.run("answers", AnswerAttack(server, tmp_path), inputs=80)
    assert not found.errors
