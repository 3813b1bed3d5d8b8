"""Drift of images and captions, with a model whose vectors are known: an image's vector is its mean colour."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from image_finder.components.configs import DriftConfig, EmbeddingConfig
from image_finder.components.drift.drift import ComparedSample, report_drift
from image_finder.components.drift.reference import DriftReference, TrainedOn, write_reference
from image_finder.components.drift.report import require_no_drift, verdict
from image_finder.components.drift.report_page import drift_figure, report_html
from image_finder.components.drift.sample import CaptionedFile, Sampler
from image_finder.components.errors import ConfigError, DataError, QualityError, StorageError
from image_finder.components.storage import sha256_of_bytes, sha256_of_file

SMALL = {"reference_images": 90, "compared_images": 60, "min_images": 20}
SENTENCES = ("a {} thing on paper", "there is one {} thing", "a {} thing on the {} table")


def paint_set(folder, *, seed, count=60, red=0.5, size=(24, 16), sentences=SENTENCES, light=1.0):
    """Plain images in shades of red or of equally bright blue; three captions each."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    files = []
    for number in range(count):
        is_red = rng.random() < red
        shade = rng.uniform(0.6, 1.0) * light
        colour = (np.array((255, 60, 60) if is_red else (100, 100, 255)) * shade + rng.uniform(0, 5, 3)).astype(
            np.uint8
        )
        path = folder / f"{number:03d}.png"
        image = Image.new("RGB", size, tuple(colour.tolist()))
        image.putpixel((0, 0), tuple(rng.integers(0, 256, 3).tolist()))  # makes every image unique
        image.save(path)
        captions = tuple(each.replace("{}", "red" if is_red else "blue") for each in sentences)
        files.append(CaptionedFile(f"{folder.name}/{path.name}", path, captions))
    return files


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    return tmp_path_factory.mktemp("drift")


@pytest.fixture(scope="module")
def sampler(colour_bundle, workspace):
    config = DriftConfig.parse(SMALL)
    return Sampler(colour_bundle, config, EmbeddingConfig(device="cpu", threads=1), cache_dir=workspace / "cache")


@pytest.fixture(scope="module")
def training(workspace):
    return paint_set(workspace / "training", seed=0, count=120)


@pytest.fixture(scope="module")
def reference(workspace, sampler, training):
    contents = [sha256_of_file(file.path) for file in training]
    trained_on = TrainedOn("shapes", "0123456789ab", training, contents)
    return write_reference(workspace / "reference", sampler, trained_on, images=90, seed=0)


@pytest.fixture(scope="module")
def report_of(sampler, reference):
    def report(files, **values):
        config = DriftConfig.parse({**SMALL, **values})
        without = reference.contents if config.images == "new" else None
        sample = sampler.draw(files, config.compared_images, without=without)
        return report_drift(ComparedSample(reference, ("finder", "1"), sample, "now", ""), None, config)

    return report


def rows(report):
    return {row.name: row for row in report.rows}


def test_a_reference_reads_back_what_was_drawn(reference, sampler, training, colour_bundle):
    drawn, kept = sampler.draw(training, 90), reference.sample
    np.testing.assert_array_equal(kept.vectors, drawn.vectors)
    np.testing.assert_array_equal(kept.sizes_px, np.full((90, 2), (24, 16)))
    np.testing.assert_array_equal(kept.brightness, drawn.brightness)
    assert kept.words == drawn.words
    assert reference.images_of_word["thing"] == 120
    assert reference.images_of_word["red"] + reference.images_of_word["blue"] == 120
    assert (reference.manifest.n_training_images, reference.manifest.n_training_captions) == (120, 360)
    assert reference.manifest.bundle_sha256 == colour_bundle.sha256
    assert all(content in reference.contents for content in drawn.contents)
    assert "f" * 64 not in reference.contents


def test_a_reference_that_was_stored_under_former_names_is_read(reference, tmp_path):
    former = tmp_path / "reference"
    shutil.copytree(reference.path, former)
    (former / "images_of_word.npy").rename(former / "pictures_of_word.npy")
    manifest = json.loads((former / "reference.json").read_text(encoding="utf-8"))
    manifest["n_training_pictures"] = manifest.pop("n_training_images")
    manifest["n_pictures"] = manifest.pop("n_images")
    manifest["files_sha256"]["pictures_of_word.npy"] = manifest["files_sha256"].pop("images_of_word.npy")
    (former / "reference.json").write_text(json.dumps(manifest), encoding="utf-8")
    opened = DriftReference.open(former)
    assert opened.images_of_word == reference.images_of_word
    assert opened.manifest.n_training_images == 120


def test_brightness_is_the_luma_of_the_pixels(sampler, workspace):
    (workspace / "plain").mkdir()
    files = []
    for name, colour in (("white", (255, 255, 255)), ("green", (0, 255, 0)), ("black", (0, 0, 0))):
        Image.new("RGB", (9, 9), colour).save(workspace / "plain" / f"{name}.png")
        files.append(CaptionedFile(name, workspace / "plain" / f"{name}.png"))
    sample = sampler.draw(files, 3)
    assert sorted(sample.brightness.tolist()) == pytest.approx([0, 0.587, 1], abs=1e-4)
    assert sample.n_captions == 0


def test_other_images_of_the_same_kind_do_not_drift(report_of, workspace):
    report = report_of(paint_set(workspace / "same", seed=1))
    assert report.drifted == ()
    assert verdict(report) == "no drift in 7 of 7 rows"
    assert (report.n_compared, report.n_known, report.reference.n_compared) == (60, 0, 90)


@pytest.mark.parametrize(
    ("changes", "drifted"),
    [
        ({"red": 1.0}, {"embeddings", "vocabulary"}),
        ({"size": (48, 32)}, {"image size"}),
        ({"size": (16, 24)}, {"image shape"}),
        ({"light": 0.5}, {"brightness"}),
        ({"sentences": ("a {} thing",)}, {"caption length", "vocabulary"}),
        (
            {"sentences": ("a {} gadget on paper", "there is one {} gizmo", "a {} thing on the {} table")},
            {"vocabulary", "new words"},
        ),
    ],
)
def test_only_the_changed_measures_drift(report_of, workspace, changes, drifted):
    name = sha256_of_bytes(repr(changes).encode())[:8]
    report = report_of(paint_set(workspace / name, seed=2, **changes))
    assert set(report.drifted) == drifted
    for row in report.rows:
        assert row.drifted == (row.measured > row.threshold)
        assert row.threshold == max(row.limit, row.chance)
        assert row.drifted <= (row.p_value <= 0.01 / 9)


def test_distances_have_readable_units(report_of, workspace):
    larger = rows(report_of(paint_set(workspace / "twice", seed=3, size=(48, 32))))["image size"]
    assert larger.measured == pytest.approx(1, abs=1e-6)  # one octave
    assert larger.detail == "median side 39 px, 20 px in training"
    longer = rows(
        report_of(
            paint_set(workspace / "long", seed=3, sentences=("a {} thing on paper that is as long as twelve words",))
        )
    )
    assert longer["caption length"].measured == pytest.approx(12 - 17 / 3, abs=1e-3)
    assert longer["caption length"].detail == "12.0 \u00b1 0.0 words, 5.7 \u00b1 0.9 in training"
    assert longer["vocabulary"].detail.startswith("more: as, ")


def test_a_certain_change_below_its_limit_is_no_drift(report_of, workspace):
    report = report_of(paint_set(workspace / "slightly", seed=4, size=(26, 17)))
    size = rows(report)["image size"]
    assert size.p_value == 0.001
    assert size.measured > size.chance
    assert not size.drifted
    assert rows(report_of(paint_set(workspace / "again", seed=4, size=(26, 17)), max_size=0.05))["image size"].drifted


def test_training_images_are_recognised_and_do_not_drift(report_of, training):
    report = report_of(training)
    assert report.drifted == ()
    assert report.n_known == 60
    assert rows(report)["new words"].measured <= 0


def test_only_new_images_are_compared_if_configured(report_of, training, workspace):
    """40 new images among 120 known ones: only the new ones alone differ clearly."""
    new = paint_set(workspace / "new", seed=5, count=40, red=1.0)
    together, alone = report_of([*training, *new]), report_of([*training, *new], images="new")
    assert "embeddings" not in together.drifted
    assert "embeddings" in alone.drifted
    assert (alone.n_compared, alone.n_known, alone.n_images) == (40, 0, 160)
    nothing_new = report_of(training, images="new")
    assert nothing_new.drifted == ()
    assert verdict(nothing_new) == "nothing was compared"
    assert rows(nothing_new)["embeddings"].detail == "0 images, 90 in training, 20 needed"


def test_images_without_captions_are_compared_as_images(report_of, workspace):
    files = [file._replace(captions=()) for file in paint_set(workspace / "bare", seed=6, light=0.5)]
    report = report_of(files)
    assert report.drifted == ("brightness",)
    assert rows(report)["vocabulary"].measured is None
    assert rows(report)["vocabulary"].detail == "0 images with captions, 90 in training, 20 needed"


def test_a_report_that_was_stored_under_former_names_is_read(report_of, workspace):
    report = report_of(paint_set(workspace / "former", seed=11))
    values = json.loads(report.model_dump_json())
    values["n_pictures"] = values.pop("n_images")
    values["reference"]["n_pictures"] = values["reference"].pop("n_images")
    for row in values["rows"]:
        row["what"] = row.pop("name")
    assert type(report).model_validate_json(json.dumps(values)) == report


def test_images_that_cannot_be_read_are_counted_and_others_drawn_instead(report_of, workspace):
    files = paint_set(workspace / "broken", seed=7, count=80)
    for file in files[::4]:
        file.path.write_bytes(b"no image")
    report = report_of(files)
    assert report.n_compared == 60
    assert 0 < report.n_unreadable <= 20
    assert report.drifted == ()


def test_a_draw_keeps_its_images_when_others_are_added(sampler, training):
    few, more = sampler.draw(training[:100], 50), sampler.draw(training, 60)
    assert len(set(few.contents) - set(more.contents)) <= 8  # pushed out by some of the 20 added
    assert sampler.draw(list(reversed(training)), 60).contents == more.contents


def test_a_damaged_or_foreign_reference_is_refused(reference, workspace):
    import shutil

    copy = shutil.copytree(reference.path, workspace / "damaged")
    (copy / "vectors.npy").write_bytes((copy / "vectors.npy").read_bytes()[:-1] + b"\x01")
    with pytest.raises(StorageError, match=r"vectors.npy has changed"):
        DriftReference.open(copy)
    (copy / "vectors.npy").unlink()
    with pytest.raises(StorageError, match=r"vectors.npy has changed"):
        DriftReference.open(copy)
    (copy / "reference.json").write_text('{"format_version": "two"}')
    with pytest.raises(StorageError, match=r"reference.json: .*fetch it again"):
        DriftReference.open(copy)
    with pytest.raises(StorageError, match="no drift reference at"):
        DriftReference.open(workspace / "nowhere")
    newer = reference.manifest.model_copy(update={"format_version": 2}).model_dump_json()
    (copy / "reference.json").write_text(newer)
    with pytest.raises(StorageError, match="has format 2, this version reads 1"):
        DriftReference.open(copy)


def test_a_reference_needs_images_that_can_be_read(sampler, workspace):
    nothing = TrainedOn("gone", "0", [CaptionedFile("a.png", workspace / "a.png", ("a",))], [])
    with pytest.raises(DataError, match="no drift reference: 1 training image of 'gone', none readable"):
        write_reference(workspace / "none", sampler, nothing, images=50, seed=0)
    assert not (workspace / "none").exists()


def test_the_gate_stops_a_run_only_with_trigger_fail(report_of, workspace):
    drifted, steady = (report_of(paint_set(workspace / f"gate{light}", seed=8, light=light)) for light in (0.5, 1.0))
    for trigger in ("warn", "off"):
        require_no_drift(drifted, DriftConfig(trigger=trigger))
    require_no_drift(steady, DriftConfig(trigger="fail"))
    with pytest.raises(
        QualityError, match=r"now drifted .* brightness 0\.\d+ \(luma, 0 to 1\), threshold 0\.\d+ \(mean 0\.\d+"
    ):
        require_no_drift(drifted, DriftConfig(trigger="fail"))


def test_the_page_shows_every_row_and_escapes_data(sampler, reference, workspace):
    files = paint_set(workspace / "page", seed=9, sentences=("<script> <script> {}",))
    compared = ComparedSample(reference, ("finder", "1"), sampler.draw(files, 60), "<b>now", "")
    report = report_drift(compared, None, DriftConfig.parse(SMALL))
    figure = drift_figure(compared)
    assert len(figure.axes) == 4
    page = report_html(report, figure)
    assert all(row.name in page for row in report.rows)
    assert "<script>" not in page
    assert "&lt;b&gt;now" in page
    assert "data:image/png;base64," in page


def test_permutations_that_cannot_reach_the_rate_are_refused():
    with pytest.raises(ConfigError, match=r"permutations \(99\) must be at least 899 for false_alarm_rate \(0.01\)"):
        DriftConfig.parse({"permutations": 99})
    assert DriftConfig.parse({"permutations": 899}).permutations == 899
