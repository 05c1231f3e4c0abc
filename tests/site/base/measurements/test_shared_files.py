"""Files that processes of different users share."""

import os
from pathlib import Path

import pytest

from orchestrator_site.base.measurements.count_file import CountFile
from orchestrator_site.base.measurements.image_names import ImageNames
from orchestrator_site.ops.metrics_counts import CountsCollector

pytestmark = [
    pytest.mark.stateless,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to others"),
]

ANOTHER_USER = 65534


def test_the_files_of_root_belong_to_the_owner_of_their_directory(tmp_path: Path) -> None:
    # Given a STATE_DIR of another user
    os.chown(tmp_path, ANOTHER_USER, ANOTHER_USER)
    directory = tmp_path / "metrics"

    # When processes of root store counts and names of images, and add up those of an ended one
    CountFile(directory).close()
    CountsCollector(directory).collect()
    living, names = CountFile(directory), ImageNames()
    names.share(directory)
    assert names.label("alpine") == "alpine"
    living.close()

    # I expect that the other user can do the same
    paths = [directory, *directory.iterdir()]
    assert {path.name for path in paths} >= {"metrics", "ended.json", "ended.lock", "images.json", "images.json.lock"}
    assert {path.stat().st_uid for path in paths} == {ANOTHER_USER}


def test_what_cannot_be_given_away_is_used_nevertheless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "chown", refuse)

    CountFile(tmp_path / "metrics").close()
