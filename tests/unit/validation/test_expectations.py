import json
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from image_finder.components.captions.captions_table import read_captions
from image_finder.components.captions.inspection import inspect_images
from image_finder.components.captions.manifest import build_manifest
from image_finder.components.captions.tokens import Tokenizer, packaged_tokenizer_json
from image_finder.components.configs import DatasetConfig, PartConfig, ValidationConfig
from image_finder.components.errors import DataError, QualityError
from image_finder.components.records.data import DatasetManifest, ValidationReport
from image_finder.components.validation.expectations import require_valid, valid_captions, validate_captions
from image_finder.components.validation.report_page import report_html

LENIENT = ValidationConfig(max_quarantined_share=1.0)


def captions_table(n_images=4, captions_per_image=2, part="train", first_image=1):
    """Images first_image, ...; image i has the captions 10 i, 10 i + 1, ..., each with its own text."""
    rows = [
        {
            "image_id": image,
            "caption_id": 10 * image + rank,
            "file_name": f"{part}/{image}.jpg",
            "caption": f"image {image} shows thing {rank}",
            "width_px": 640,
            "height_px": 480,
            "license": 1,
            "part": part,
        }
        for image in range(first_image, first_image + n_images)
        for rank in range(captions_per_image)
    ]
    return pd.DataFrame(rows)


def images_of(captions):
    rows = captions.drop_duplicates(["part", "image_id"])[["image_id", "file_name", "part"]].reset_index(drop=True)
    return rows.assign(
        sha256=[f"{part}{image}" for part, image in zip(rows["part"], rows["image_id"], strict=True)],
        bytes=1000,
        width_px=640,
        height_px=480,
        error="",
    )


def manifest_of(captions, **changes):
    images = captions.groupby("part")["image_id"].nunique()
    values = {
        "name": "toy",
        "layout": "coco",
        "root": "",
        "n_images": int(images.sum()),
        "n_captions": len(captions),
        "n_images_of_part": {str(part): int(count) for part, count in images.items()},
        "annotations_sha256": {"train": "00"},
        "images_sha256": "11",
        "mean_caption_characters": 50.0,
        "unreadable_images": 0,
    }
    return DatasetManifest(**{**values, **changes})


def words_of(captions):
    return np.array([len(text.split()) if isinstance(text, str) else 0 for text in captions["caption"]], dtype=np.int64)


def validate(captions, images=None, config=LENIENT, **options):
    images = images_of(captions) if images is None else images
    options = {"manifest": manifest_of(captions), "token_counts": words_of(captions), **options}
    return validate_captions(captions, images, options.pop("manifest"), config, **options)


def expectation(report, name):
    (found,) = (result for result in report.expectations if result.name == name)
    return found


def failed_names(report):
    return {result.name for result in report.expectations if not result.success}


def test_sound_table_passes_every_expectation_and_loses_no_caption():
    captions = captions_table()
    report = validate(captions)
    assert report.success
    assert failed_names(report) == set()
    assert report.quarantined == {}
    assert (report.n_images, report.n_captions, report.n_valid_captions) == (4, 8, 8)
    assert expectation(report, "caption_too_short").n_checked == 8
    assert expectation(report, "image_in_one_part").n_checked == 4
    pd.testing.assert_frame_equal(valid_captions(captions, report), captions)
    require_valid(report)


def faulty_tables():
    """Ten images of three captions, one fault of each kind."""
    captions = captions_table(n_images=10, captions_per_image=3)
    captions.loc[captions["caption_id"] == 10, "caption"] = None
    captions.loc[captions["caption_id"] == 11, "caption"] = ""
    captions.loc[captions["caption_id"] == 12, "caption"] = " \t\n"
    captions.loc[captions["caption_id"] == 20, "caption"] = "two words"
    captions.loc[captions["caption_id"] == 21, "caption"] = "word " * 9
    captions.loc[captions["caption_id"] == 22, "caption_id"] = 21
    images = images_of(captions).set_index("image_id")
    images.loc[3, ["sha256", "bytes", "width_px", "height_px", "error"]] = ["", 0, 0, 0, "no such file"]
    images = images.drop(4)
    images.loc[5, ["width_px", "height_px", "error"]] = [0, 0, "truncated after 17 bytes"]
    images.loc[6, ["width_px", "height_px"]] = [641, 480]
    images.loc[7, ["width_px", "height_px"]] = [480, 640]  # annotated before the EXIF orientation: accepted
    images.loc[8, ["width_px", "height_px"]] = [12, 34]
    captions.loc[captions["image_id"] == 8, "width_px"] = 0  # size unknown: not compared
    fourth = captions[captions["caption_id"] == 90].assign(caption_id=93, caption="a fourth thing is seen here")
    captions = pd.concat([captions, fourth], ignore_index=True)
    captions = captions[~captions["caption_id"].isin([101, 102])].reset_index(drop=True)
    return captions, images.reset_index()[images_of(captions).columns]


STRICT = ValidationConfig(
    min_caption_tokens=3,
    max_caption_tokens=8,
    min_captions_per_image=2,
    max_captions_per_image=3,
    max_quarantined_share=1.0,
)


def test_each_fault_is_quarantined_under_its_reason_with_exact_ids():
    captions, images = faulty_tables()
    report = validate(captions, images, STRICT)
    assert report.quarantined == {
        "caption_id_repeated": (21,),
        "caption_empty": (10, 11, 12),
        "caption_too_short": (20,),
        "caption_too_long": (21,),
        "image_missing": (30, 31, 32, 40, 41, 42),
        "image_unreadable": (50, 51, 52),
        "image_size_differs": (60, 61, 62),
        "too_few_captions": (100,),
        "too_many_captions": (93,),
    }
    assert valid_captions(captions, report)["caption_id"].tolist() == [70, 71, 72, 80, 81, 82, 90, 91, 92]
    assert report.n_valid_captions == 9
    assert report.success


def test_examples_say_what_was_measured():
    captions, images = faulty_tables()
    report = validate(captions, images, STRICT)
    found = {result.name: result.examples[0] for result in report.expectations if result.examples}
    assert found["caption_too_short"] == "caption 20: 2 tokens, 'two words'"
    assert found["image_missing"] == "caption 30: train/3.jpg, no such file"
    assert expectation(report, "image_missing").examples[3] == "caption 40: train/4.jpg, not in the images table"
    assert found["image_unreadable"] == "caption 50: train/5.jpg, truncated after 17 bytes"
    assert found["image_size_differs"] == "caption 60: train/6.jpg, 641 x 480 px, annotated 640 x 480 px"
    assert found["too_many_captions"] == "caption 93: number 4 of 4 of train/9.jpg"
    assert (
        expectation(report, "image_size_differs").n_checked == 16
    )  # of images 1, 2, 6, 7, 9, 10: 3 + 2 + 3 + 3 + 4 + 1


def test_caption_with_two_faults_is_listed_under_both_reasons_and_counted_once():
    captions = captions_table()
    captions.loc[0, "caption"] = "short"
    images = images_of(captions)
    images.loc[0, "error"] = "truncated"
    report = validate(captions, images)
    assert report.quarantined == {"caption_too_short": (10,), "image_unreadable": (10, 11)}
    assert report.n_valid_captions == 6
    assert report.quarantined_share == 0.25


def test_captions_of_an_image_are_counted_without_the_unusable_ones():
    captions = captions_table(n_images=2, captions_per_image=3)
    captions.loc[0, "caption"] = ""
    captions.loc[[4, 5], "caption"] = ""
    limits = {"min_captions_per_image": 2, "max_captions_per_image": 2, "max_quarantined_share": 1.0}
    report = validate(captions, config=ValidationConfig(**limits))
    assert report.quarantined == {"caption_empty": (10, 21, 22), "too_few_captions": (20,)}
    assert valid_captions(captions, report)["caption_id"].tolist() == [11, 12]


def test_repeated_id_is_dropped_even_if_the_first_is_quarantined():
    captions = captions_table(n_images=2)
    captions["caption_id"] = [7, 7, 7, 8]
    captions.loc[0, "caption"] = ""
    report = validate(captions)
    assert report.quarantined == {"caption_id_repeated": (7, 7), "caption_empty": (7,)}
    assert valid_captions(captions, report)["caption_id"].tolist() == [8]
    assert report.n_valid_captions == 1


def test_same_caption_ids_in_two_parts_are_two_captions():
    train = captions_table(n_images=3)
    val = captions_table(n_images=3, part="val", first_image=50).assign(caption_id=train["caption_id"])
    captions = pd.concat([train, val], ignore_index=True)
    captions.loc[9, "caption"] = ""
    report = validate(captions)
    assert report.quarantined == {"caption_empty@val": (captions["caption_id"][9],)}
    pd.testing.assert_frame_equal(valid_captions(captions, report), captions.drop(index=9).reset_index(drop=True))


@pytest.mark.parametrize(("n_empty", "passes"), [(28, True), (29, True), (30, False)])
def test_gate_allows_exactly_the_share_and_not_one_caption_more(n_empty, passes):
    # 0.29: 1 - 71 / 100 is above it by the last bit of a float
    captions = captions_table(n_images=10, captions_per_image=10)
    captions.loc[: n_empty - 1, "caption"] = ""
    report = validate(captions, config=ValidationConfig(max_quarantined_share=0.29))
    assert report.success is passes
    assert report.quarantined_share == n_empty / 100
    if passes:
        require_valid(report)
    else:
        refusal = (
            r"30 of 100 captions quarantined \(30%, allowed 29%\): caption_empty 30 \(caption ids 10, 11, 12, ...\)"
        )
        with pytest.raises(QualityError, match=refusal):
            require_valid(report)


def test_gate_names_the_biggest_reasons_first():
    captions, images = faulty_tables()
    report = validate(captions, images, STRICT.model_copy(update={"max_quarantined_share": 0.5}))
    with pytest.raises(QualityError) as refused:
        require_valid(report)
    text = str(refused.value)
    assert "20 of 29 captions quarantined (68.97%, allowed 50%)" in text
    assert text.index("image_missing 6") < text.index("caption_empty 3") < text.index("image_size_differs 3")
    assert "\n" not in text


def test_image_in_two_parts_by_id_stops_the_run():
    captions = pd.concat([captions_table(3), captions_table(2, part="val", first_image=3)], ignore_index=True)
    captions["caption_id"] = range(len(captions))
    captions["caption"] = "in " + captions["part"] + " " + captions["caption"]
    report = validate(captions)
    assert failed_names(report) == {"image_in_one_part"}
    assert expectation(report, "image_in_one_part").examples == ("image 3: 2 parts, train/3.jpg and val/3.jpg",)
    with pytest.raises(QualityError, match=r"image_in_one_part: .*measured 1 of 4 .*e\.g\. image 3: 2 parts"):
        require_valid(report)


def test_image_in_two_parts_by_content_stops_the_run():
    captions = pd.concat([captions_table(3), captions_table(2, part="val", first_image=7)], ignore_index=True)
    images = images_of(captions)
    images.loc[images["image_id"].isin([2, 8]), "sha256"] = "same"
    report = validate(captions, images)
    assert failed_names(report) == {"content_in_one_part"}
    expected = "train/2.jpg and val/8.jpg: the same content in train and val"
    assert expectation(report, "content_in_one_part").examples == (expected,)
    assert not report.success


def test_an_extra_set_is_validated_as_a_part_and_shares_no_image_with_train():
    captions = pd.concat([captions_table(3), captions_table(2, part="coco", first_image=7)], ignore_index=True)
    manifest = manifest_of(captions, annotations_sha256={"train": "00", "coco": "11"})
    assert validate(captions, manifest=manifest).success
    images = images_of(captions)
    images.loc[images["image_id"].isin([2, 8]), "sha256"] = "same"
    report = validate(captions, images, manifest=manifest)
    with pytest.raises(QualityError, match=r"content_in_one_part: .*the same content in coco and train") as caught:
        require_valid(report)
    assert "\n" not in str(caught.value)
    assert failed_names(validate(captions, manifest=manifest_of(captions))) == {"part_known"}


def test_absent_images_of_two_parts_are_not_one_content():
    captions = pd.concat([captions_table(3), captions_table(3, part="val", first_image=7)], ignore_index=True)
    images = images_of(captions)
    images.loc[images["image_id"].isin([2, 8]), ["sha256", "error"]] = ["", "no such file"]
    report = validate(captions, images)
    assert failed_names(report) == {"image_missing"}
    assert report.success


def test_image_id_with_two_files_stops_the_run():
    captions = captions_table()
    captions.loc[1, "file_name"] = "train/other.jpg"
    report = validate(captions)
    assert failed_names(report) == {"image_in_one_file"}
    assert expectation(report, "image_in_one_file").n_failed == 1
    assert not report.success


def test_unknown_part_stops_the_run():
    captions = captions_table().assign(part="training")
    report = validate(captions)
    assert failed_names(report) == {"part_known"}
    assert not report.success


def test_part_that_quarantine_leaves_empty_stops_the_run():
    captions = pd.concat([captions_table(4), captions_table(1, part="val", first_image=9)], ignore_index=True)
    captions.loc[captions["part"] == "val", "caption"] = ""
    report = validate(captions)
    assert failed_names(report) == {"caption_empty", "part_not_empty"}
    assert expectation(report, "part_not_empty").examples == ("part val: 0 usable captions",)
    assert not report.success


def test_part_of_the_manifest_without_captions_stops_the_run():
    captions = captions_table()
    manifest = manifest_of(captions, n_images_of_part={"train": 4, "test": 3})
    assert failed_names(validate(captions, manifest=manifest)) == {"part_not_empty"}


def test_wrong_types_end_the_validation_and_are_named():
    captions = captions_table().astype({"image_id": "float64", "license": "str"})
    captions["file_name"] = captions["file_name"].where(captions.index > 1)
    report = validate(captions, images_of(captions_table()))
    assert not report.success
    assert [result.name for result in report.expectations] == ["columns_typed"]
    assert report.expectations[0].examples == (
        "captions.image_id: float64 instead of int64",
        "captions.file_name: 2 missing values instead of text",
        "captions.license: str instead of int64",
    )
    assert len(valid_captions(captions, report)) == report.n_valid_captions
    with pytest.raises(QualityError, match=r"columns_typed: .*image_id: float64 instead of int64"):
        require_valid(report)


def test_wrong_columns_are_refused_by_name_before_anything_is_measured():
    captions = captions_table()
    refusal = "captions table has wrong columns: missing caption_id, part; unexpected split"
    with pytest.raises(DataError, match=refusal):
        validate_captions(
            captions.drop(columns=["caption_id"]).rename(columns={"part": "split"}),
            images_of(captions),
            manifest_of(captions),
            LENIENT,
            token_counts=words_of(captions),
        )
    with pytest.raises(DataError, match="images table has wrong columns: missing sha256; unexpected none"):
        validate(captions, images_of(captions).drop(columns="sha256"))


def test_token_counts_of_another_table_are_refused():
    with pytest.raises(DataError, match=r"token_counts has shape \(3,\), expected \(8,\)"):
        validate(captions_table(), token_counts=np.ones(3, dtype=np.int64))


def test_empty_tables_are_measured_and_stop_the_run():
    captions = captions_table()
    empty = pd.DataFrame(columns=captions.columns)
    report = validate(empty, pd.DataFrame(columns=images_of(captions).columns), manifest=manifest_of(captions))
    assert failed_names(report) == {"captions_present", "part_not_empty"}
    assert (report.n_captions, report.n_valid_captions, report.quarantined_share) == (0, 0, 0.0)
    with pytest.raises(QualityError, match="captions_present: the table holds at least one caption, measured 0"):
        require_valid(report)
    assert "<strong>Failed</strong>" in report_html(report)


def test_empty_images_table_quarantines_every_caption():
    captions = captions_table()
    report = validate(captions, images_of(captions).iloc[:0])
    assert report.quarantined == {"image_missing": tuple(captions["caption_id"])}
    assert valid_captions(captions, report).empty


def test_table_of_missing_captions_only_is_quarantined_whole():
    captions = captions_table().assign(caption=np.nan)
    report = validate(captions)
    assert report.quarantined == {"caption_empty": tuple(captions["caption_id"])}


def test_caption_of_ten_thousand_characters_is_quarantined_and_cut_in_the_report():
    captions = captions_table()
    captions.loc[3, "caption"] = "word " * 2000
    report = validate(captions)
    assert report.quarantined == {"caption_too_long": (21,)}
    (example,) = expectation(report, "caption_too_long").examples
    assert example.startswith("caption 21: 2000 tokens, 'word word")
    assert len(example) < 120


@pytest.mark.parametrize("dtype", ["str", "object", "string"])
def test_any_text_type_of_pandas_gives_the_same_report(dtype):
    captions, images = faulty_tables()
    text = {"file_name": dtype, "caption": dtype, "part": dtype}
    assert validate(captions.astype(text), images, STRICT) == validate(captions, images, STRICT)


def test_order_and_index_of_the_rows_change_no_verdict():
    captions, images = faulty_tables()
    captions = captions[captions["caption_id"] != 21]  # which of two repeated ids comes first does depend on order
    shuffled = captions.sample(frac=1, random_state=0)
    captions_left, shuffled_left = (
        valid_captions(table, validate(table, images, STRICT.model_copy(update={"max_captions_per_image": 4})))
        for table in (captions, shuffled)
    )
    assert sorted(captions_left["caption_id"]) == sorted(shuffled_left["caption_id"])
    assert shuffled_left["caption_id"].tolist() == [
        id_ for id_ in shuffled["caption_id"] if id_ in set(captions_left["caption_id"])
    ]


@pytest.mark.parametrize(("n_repeated", "warns"), [(28, False), (29, False), (30, True)])
def test_repeated_texts_warn_above_their_share_and_do_not_stop(n_repeated, warns):
    captions = captions_table(n_images=10, captions_per_image=10)
    variants = ["A dog, on grass.", "a dog on GRASS", "A dog   on grass!", "“A dog on grass”"]
    captions.loc[: n_repeated - 1, "caption"] = [variants[row % 4] for row in range(n_repeated)]
    report = validate(captions, config=ValidationConfig(max_duplicated_share=0.29))
    measured = expectation(report, "caption_text_repeated")
    assert measured.n_failed == n_repeated
    assert measured.success is not warns
    assert report.success
    assert report.n_valid_captions == 100
    require_valid(report)


def test_captions_in_another_script_are_not_mistaken_for_one_text():
    captions = captions_table(n_images=1, captions_per_image=3)
    captions["caption"] = ["собака на траве", "кошка на траве", "птица на траве"]
    assert expectation(validate(captions), "caption_text_repeated").n_failed == 0


def test_near_empty_caption_is_counted_and_kept():
    captions = captions_table()
    captions.loc[2, "caption"] = "a dog ."
    report = validate(captions, token_counts=np.full(8, 5))
    assert expectation(report, "caption_near_empty").examples == ("caption 20: 'a dog .'",)
    assert failed_names(report) == {"caption_near_empty"}
    assert report.success
    assert report.n_valid_captions == 8


def test_drift_is_measured_exactly_and_does_not_stop():
    captions = captions_table(n_images=6, captions_per_image=2)
    previous = manifest_of(captions, n_images=5, n_captions=16, mean_caption_characters=40.0)
    report = validate(captions, previous=previous, config=ValidationConfig(max_count_drift=0.2, max_length_drift=0.2))
    images, count, length = (
        expectation(report, name) for name in ("image_count_drift", "caption_count_drift", "caption_length_drift")
    )
    assert (images.observed, images.success) == ("5 before, 6 now: changed by 20.0000%", True)
    assert (count.observed, count.success) == ("16 before, 12 now: changed by 25.0000%", False)
    assert (length.observed, length.success) == ("40 before, 50 now: changed by 25.0000%", False)
    assert report.success
    require_valid(report)


def test_drift_from_nothing_warns():
    captions = captions_table()
    report = validate(captions, previous=manifest_of(captions, n_captions=0))
    assert failed_names(report) == {"caption_count_drift"}


def test_drift_is_not_stated_without_a_previous_version():
    assert not {result.name for result in validate(captions_table()).expectations if "drift" in result.name}


def test_report_survives_json():
    captions, images = faulty_tables()
    report = validate(captions, images, STRICT, previous=manifest_of(captions))
    assert ValidationReport.model_validate_json(report.model_dump_json()) == report


def test_page_escapes_text_of_the_data():
    captions = captions_table()
    captions.loc[0, "caption"] = "<script>alert(1)</script>"
    captions["file_name"] = "<img src=x>" + captions["file_name"]
    report = validate(captions, manifest=manifest_of(captions, name="toy & <b>"))
    page = report_html(report)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "toy &amp; &lt;b&gt;" in page
    assert "<script" not in page
    assert "<img" not in page
    assert "<b>" not in page


def test_page_shows_verdict_numbers_and_ids():
    captions, images = faulty_tables()
    page = report_html(validate(captions, images, STRICT.model_copy(update={"max_quarantined_share": 0.5})))
    assert "<strong>Failed</strong>" in page
    assert "9 of 29 captions of 10 images can be used." in page
    assert "Quarantined: 20 (68.97%, at most 50% allowed)." in page
    assert "30, 31, 32, 40, 41, 42" in page
    assert page.index("image_missing</code></td>") < page.index("too_many_captions</code></td>")
    assert "Passed" in report_html(validate(captions_table()))


def test_reading_a_report_does_not_import_great_expectations():
    code = (
        "import sys, image_finder.components.validation.report_page;"
        "from image_finder.components.validation.expectations import require_valid, valid_captions;"
        "sys.exit('great_expectations' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


def test_validation_writes_no_file_and_prints_nothing(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    captions, images = faulty_tables()
    validate(captions, images, STRICT)
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_all_captions_of_real_coco_images_are_valid(shared_data):
    config = DatasetConfig(
        name="coco",
        root=shared_data / "coco",
        parts={
            part: PartConfig(annotations=f"annotations/captions_{part}2017.json", images=f"{part}2017")
            for part in ("train", "val")
        },
    )
    captions = read_captions(config)
    images = inspect_images(captions, shared_data / "coco")
    token_counts = Tokenizer(packaged_tokenizer_json(), max_tokens=64).count(captions["caption"].tolist())
    manifest = build_manifest(captions, images, config)
    report = validate_captions(captions, images, manifest, ValidationConfig(), token_counts=token_counts)
    assert failed_names(report) == set()
    assert (report.n_images, report.n_captions, report.n_valid_captions) == (280, 1400, 1400)
    sizes = expectation(report, "image_size_differs")
    assert (sizes.n_checked, sizes.n_failed) == (1400, 0)
    assert report.data_version == manifest.version
    notes = json.loads((shared_data / "coco/annotations/captions_val2017.json").read_text(encoding="utf-8"))
    assert {note["id"] for note in notes["annotations"]} <= set(valid_captions(captions, report)["caption_id"])
