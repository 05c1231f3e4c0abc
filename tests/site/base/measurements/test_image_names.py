"""Which images have series of their own."""

import json
from pathlib import Path

import pytest

from orchestrator_site.base.measurements import image_names
from orchestrator_site.base.measurements.image_names import MAX_IMAGES, ImageNames

pytestmark = pytest.mark.stateless


def shared(directory: Path) -> ImageNames:
    names = ImageNames()
    names.share(directory)
    return names


def test_the_first_hundred_images_have_a_series_in_all_processes(tmp_path: Path) -> None:
    # Given two processes that see many images
    first, second = shared(tmp_path), shared(tmp_path)
    labels = [(first if number % 2 else second).label(f"image:{number}") for number in range(MAX_IMAGES + 20)]

    # I expect series for a hundred, which both know, and none for the others
    assert labels == [f"image:{number}" for number in range(MAX_IMAGES)] + ["other"] * 20
    assert (first.label("image:0"), second.label("image:1"), first.label("image:110")) == ("image:0", "image:1", "other")


def test_without_a_directory_a_process_has_a_hundred_of_its_own() -> None:
    names = ImageNames()

    assert [names.label(f"image:{number}") for number in range(MAX_IMAGES + 1)][-2:] == [f"image:{MAX_IMAGES - 1}", "other"]


def test_images_that_are_used_most_replace_others(tmp_path: Path) -> None:
    # Given a hundred images that have a series, and a process that knows them
    names = shared(tmp_path)
    for number in range(MAX_IMAGES):
        names.label(f"old:{number}")

    # When two others are used most
    image_names.replace_names(tmp_path, ["new:1", "new:2"])

    # I expect them to replace the two that came last
    assert [names.label(image) for image in ("new:1", "new:2", "old:97", "old:98", "old:99")] == [
        "new:1",
        "new:2",
        "old:97",
        "other",
        "other",
    ]


def test_a_process_counts_a_limited_number_of_images_however_often_they_are_replaced(tmp_path: Path) -> None:
    # Given a process that has counted many images, each of which was used most for a while
    names = shared(tmp_path)
    labels = []
    for number in range(12):
        images = [f"{number}:{other}" for other in range(MAX_IMAGES)]
        image_names.replace_names(tmp_path, images)
        labels += [names.label(image) for image in images]

    # I expect the last ones to be counted as others
    assert len(set(labels) - {"other"}) == 10 * MAX_IMAGES
    assert labels[-1] == "other"


@pytest.mark.parametrize("content", ["", "{}", '["alp', json.dumps([1, None])])
def test_a_broken_file_counts_as_empty(tmp_path: Path, content: str) -> None:
    (tmp_path / "images.json").write_text(content)

    assert shared(tmp_path).label("alpine") == "alpine"


def test_an_image_is_other_while_the_file_cannot_be_changed(tmp_path: Path) -> None:
    # Given another process that holds the lock
    with image_names._locked(tmp_path):
        # I expect this one not to wait for it
        assert shared(tmp_path).label("alpine") == "other"
    assert shared(tmp_path).label("alpine") == "alpine"
