"""What counts as changed since the registered versions."""

import pytest

from image_finder.pipelines.scheduling.changes import Fingerprints, Known, compare

NOW = Fingerprints(data_fingerprint="d", code_sha256="c", config_sha256="f", environment_sha256="e")
TAGS = {"data_fingerprint": "d", "code_sha256": "c", "config_sha256": "f", "environment_sha256": "e", "other": "x"}


def test_equal_hashes_of_a_decided_version_are_no_change():
    found = compare(NOW, [Known("7", TAGS, decided=True)])
    assert not found.any
    assert found.text == "nothing changed since version 7"


@pytest.mark.parametrize(
    ("tag", "meaning"),
    [
        ("data_fingerprint", "data"),
        ("code_sha256", "code"),
        ("config_sha256", "configuration"),
        ("environment_sha256", "installed packages"),
    ],
)
def test_each_hash_that_differs_or_is_missing_is_a_change_with_a_name(tag, meaning):
    for tags in ({**TAGS, tag: "z"}, {key: value for key, value in TAGS.items() if key != tag}, {**TAGS, tag: ""}):
        found = compare(NOW, [Known("7", tags, decided=True)])
        assert found.any
        assert found.text == f"{meaning} changed since version 7"


def test_all_that_changed_is_named():
    found = compare(NOW, [Known("7", {}, decided=True)])
    assert found.text == "data, code, configuration, installed packages changed since version 7"


def test_without_any_version_there_is_something_to_do():
    found = compare(NOW, [])
    assert found.any
    assert found.text == "no version is registered yet"


def test_a_version_whose_run_died_before_its_decision_is_something_to_do():
    found = compare(NOW, [Known("7", TAGS, decided=False)])
    assert found.any
    assert found.text == "nothing changed since version 7, about which no decision was made"


def test_data_that_went_back_to_those_of_an_older_version_are_no_change():
    other = {**TAGS, "data_fingerprint": "z"}
    found = compare(
        NOW, [Known("9", other, decided=True), Known("8", TAGS, decided=False), Known("7", TAGS, decided=True)]
    )
    assert not found.any
    assert found.text == "nothing changed since version 7"


def test_an_older_version_that_is_undecided_or_not_quite_the_same_leaves_it_to_the_newest():
    other = {**TAGS, "data_fingerprint": "z"}
    for older in (Known("7", TAGS, decided=False), Known("7", {**TAGS, "code_sha256": "z"}, decided=True)):
        found = compare(NOW, [Known("8", other, decided=True), older])
        assert found.any
        assert found.text == "data changed since version 8"
