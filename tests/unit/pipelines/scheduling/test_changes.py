"""Changes since the registered versions."""

import pytest

from image_finder.pipelines.scheduling.changes import Fingerprints, KnownVersion, compare

NOW = Fingerprints(data_fingerprint="d", code_sha256="c", config_sha256="f", environment_sha256="e")
TAGS = {"data_fingerprint": "d", "code_sha256": "c", "config_sha256": "f", "environment_sha256": "e", "other": "x"}


def test_a_decided_version_with_equal_hashes_means_no_change():
    found = compare(NOW, [KnownVersion("7", TAGS, decided=True)])
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
def test_each_different_or_missing_hash_is_a_named_change(tag, meaning):
    for tags in ({**TAGS, tag: "z"}, {key: value for key, value in TAGS.items() if key != tag}, {**TAGS, tag: ""}):
        found = compare(NOW, [KnownVersion("7", tags, decided=True)])
        assert found.any
        assert found.text == f"{meaning} changed since version 7"


def test_every_change_is_named():
    found = compare(NOW, [KnownVersion("7", {}, decided=True)])
    assert found.text == "data, code, configuration, installed packages changed since version 7"


def test_without_any_version_a_training_is_needed():
    found = compare(NOW, [])
    assert found.any
    assert found.text == "no version is registered yet"


def test_a_version_without_a_decision_needs_a_training():
    found = compare(NOW, [KnownVersion("7", TAGS, decided=False)])
    assert found.any
    assert found.text == "nothing changed since version 7, which has no promotion decision"


def test_data_equal_to_those_of_an_older_version_are_no_change():
    other = {**TAGS, "data_fingerprint": "z"}
    found = compare(
        NOW,
        [
            KnownVersion("9", other, decided=True),
            KnownVersion("8", TAGS, decided=False),
            KnownVersion("7", TAGS, decided=True),
        ],
    )
    assert not found.any
    assert found.text == "nothing changed since version 7"


def test_an_older_version_that_is_undecided_or_differs_is_not_compared_with():
    other = {**TAGS, "data_fingerprint": "z"}
    for older in (
        KnownVersion("7", TAGS, decided=False),
        KnownVersion("7", {**TAGS, "code_sha256": "z"}, decided=True),
    ):
        found = compare(NOW, [KnownVersion("8", other, decided=True), older])
        assert found.any
        assert found.text == "data changed since version 8"
