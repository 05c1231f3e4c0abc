"""How tests are given to the worker processes of a run."""

import pytest

from tests.helpers.parallel import has_alone


def test_files_with_tests_that_run_alone_are_known(request: pytest.FixtureRequest) -> None:
    """They are given to one process: anywhere else they would wait for one another, and all others for them."""
    alone = {item.path for item in request.session.items if item.get_closest_marker("alone")}

    assert [path for path in sorted(alone) if not has_alone(path)] == []
