import json
import random
import shutil

import pytest

from image_finder.components.bundle.bundle import (
    IMAGE_ENCODER,
    MANIFEST,
    PREPROCESS,
    SCORES,
    TEXT_ENCODER,
    TOKENIZER,
    VOCABULARY,
    Bundle,
)
from image_finder.components.captions.vocabulary import Vocabulary
from image_finder.components.errors import BundleError
from image_finder.components.index.publish import keep_bundle
from image_finder.components.storage import sealed, unsealed

FILES = (IMAGE_ENCODER, TEXT_ENCODER, TOKENIZER, PREPROCESS, SCORES)


@pytest.fixture
def copy(colour_bundle, tmp_path):
    shutil.copytree(colour_bundle.path, tmp_path / "copy")
    return tmp_path / "copy"


def refusal(path):
    with pytest.raises(BundleError) as caught:
        Bundle.open(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def change_manifest(path, **values):
    content = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    (path / MANIFEST).write_text(sealed(json.dumps({**content, **values})), encoding="utf-8")


@pytest.mark.parametrize("name", FILES)
def test_a_file_with_a_flipped_byte_a_truncated_and_a_missing_one_are_named(copy, name):
    whole = (copy / name).read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    for damaged in (bytes(flipped), whole[:-1], b""):
        (copy / name).write_bytes(damaged)
        assert f"is corrupted: {name} has sha256" in refusal(copy)
    (copy / name).unlink()
    assert f"is incomplete: {name} is missing" in refusal(copy)
    (copy / name).write_bytes(whole)
    assert Bundle.open(copy).path == copy


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe\x00", b'{"format_version": 2}', b"null"])
def test_a_malformed_manifest_is_a_one_line_error(copy, content):
    (copy / MANIFEST).write_bytes(content)
    assert "is not a bundle manifest" in refusal(copy)


def test_every_flipped_bit_of_the_manifest_is_detected(copy):
    whole = (copy / MANIFEST).read_bytes()
    manifest = Bundle.open(copy).manifest
    chance, refused = random.Random(6), []
    for position in range(len(whole)):
        for bit in chance.sample(range(8), 2):
            damaged = bytearray(whole)
            damaged[position] ^= 1 << bit
            (copy / MANIFEST).write_bytes(damaged)
            try:
                assert Bundle.open(copy, verify=False).manifest == manifest
            except BundleError as error:
                refused.append(str(error))
    assert len(refused) > len(whole)
    assert "\n" not in "".join(refused)
    (copy / MANIFEST).write_bytes(whole.replace(b'"max_tokens": ', b'"max_tokens": 1'))
    assert "is not a bundle manifest, or damaged: its values have sha256 " in refusal(copy)


def test_a_bundle_without_checksum_still_opens_and_its_published_copy_has_one(copy, tmp_path):
    manifest = Bundle.open(copy).manifest
    values, _ = unsealed((copy / MANIFEST).read_bytes())
    (copy / MANIFEST).write_text(json.dumps(values))
    assert Bundle.open(copy).manifest == manifest
    kept = keep_bundle(Bundle.open(copy), tmp_path / "bundles")
    assert unsealed((kept / MANIFEST).read_bytes()) == (values, True)


def test_a_folder_without_a_manifest_is_not_a_bundle(tmp_path):
    assert f"no bundle at {tmp_path}: {MANIFEST} is missing" in refusal(tmp_path)


def test_another_format_version_is_refused_with_both_versions(copy):
    change_manifest(copy, format_version=99)
    assert "has format 99, this version reads 2; install a newer" in refusal(copy)


def test_scores_are_read_as_written(copy, colour_scores):
    assert Bundle.open(copy).scores() == colour_scores


@pytest.mark.parametrize("change", [{"good_match": None}, {"quantiles": [0.1] * 20}, {"logit_scale": -1}, {"more": 1}])
def test_unreadable_scores_are_a_one_line_error(copy, change):
    content = {**json.loads((copy / SCORES).read_text()), **change}
    (copy / SCORES).write_text(json.dumps(content))
    with pytest.raises(BundleError, match=r"scores\.json: .*; fetch or export the bundle again$") as caught:
        Bundle.open(copy, verify=False).scores()
    assert "\n" not in str(caught.value)


def test_a_vocabulary_is_read_and_a_damaged_or_unlisted_one_is_an_error(write_colour_bundle, colour_bundle, tmp_path):
    vocabulary = Vocabulary.of(["a dog", "a dog"])
    bundle = write_colour_bundle(tmp_path / "worded", vocabulary=vocabulary)
    assert bundle.vocabulary() == vocabulary
    assert bundle.sha256 != colour_bundle.sha256
    assert colour_bundle.vocabulary() is None  # made before there were any
    (bundle.path / VOCABULARY).write_text("{}")
    assert f"is corrupted: {VOCABULARY} has sha256" in refusal(bundle.path)
    with pytest.raises(BundleError, match=r"vocabulary\.json: .*; fetch or export the bundle again$"):
        Bundle.open(bundle.path, verify=False).vocabulary()
    (bundle.path / VOCABULARY).unlink()
    assert f"is incomplete: {VOCABULARY} is missing" in refusal(bundle.path)


def test_a_bundle_of_the_first_format_without_scores_is_refused_with_advice(copy):
    hashes = json.loads((copy / MANIFEST).read_text(encoding="utf-8"))["files_sha256"]
    (copy / SCORES).unlink()
    change_manifest(copy, format_version=1, files_sha256={name: hashes[name] for name in FILES if name != SCORES})
    assert refusal(copy) == f"bundle {copy} has format 1, this version reads 2; train again with this version"


def test_a_manifest_that_lacks_a_required_file_is_refused(copy):
    hashes = json.loads((copy / MANIFEST).read_text(encoding="utf-8"))["files_sha256"]
    change_manifest(copy, files_sha256={name: digest for name, digest in hashes.items() if name != TEXT_ENCODER})
    assert TEXT_ENCODER in refusal(copy)


def test_a_manifest_cannot_name_files_outside_the_bundle(copy):
    change_manifest(copy, files_sha256={"../secret": "0" * 64})
    assert "does not list the files of a bundle: ../secret, image_encoder.onnx" in refusal(copy)


def test_identity_depends_on_the_content_and_not_on_path_or_report(copy, colour_bundle, write_colour_bundle, tmp_path):
    assert Bundle.open(copy).sha256 == colour_bundle.sha256
    change_manifest(copy, dataset="renamed")
    assert Bundle.open(copy).sha256 == colour_bundle.sha256
    assert write_colour_bundle(tmp_path / "other", input_px=16).sha256 != colour_bundle.sha256
