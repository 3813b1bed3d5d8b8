"""Images are read once, broken ones are named, and the data version follows the content."""

import hashlib
import io
import logging
import os
import shutil
import sys

import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image

from image_finder.components.captions import inspection
from image_finder.components.captions.captions_table import read_captions
from image_finder.components.captions.inspection import inspect_images
from image_finder.components.captions.manifest import build_manifest, quick_fingerprint
from image_finder.components.configs import DatasetConfig, PartConfig
from image_finder.components.errors import StorageError

PARTS = {
    part: {"annotations": f"annotations/captions_{part}2017.json", "images": f"{part}2017"} for part in ("train", "val")
}


def jpeg(colour, size=(200, 100), **options):
    stream = io.BytesIO()
    Image.new("RGB", size, colour).save(stream, "JPEG", **options)
    return stream.getvalue()


def table_of(*file_names):
    ids = range(1, len(file_names) + 1)
    return pd.DataFrame(
        {
            "image_id": list(ids),
            "caption_id": list(ids),
            "file_name": list(file_names),
            "caption": "four",
            "part": "train",
        }
    )


@pytest.fixture
def coco(tmp_path, shared_data):
    """A copy of the real COCO images that a test may damage: (configuration, captions)."""
    root = tmp_path / "coco"
    for folder in ("annotations", "train2017", "val2017"):
        shutil.copytree(shared_data / "coco" / folder, root / folder, copy_function=shutil.copyfile)
    for folder in (root, *root.iterdir()):
        folder.chmod(0o755)
    config = DatasetConfig(name="coco", root=root, parts=PARTS)
    return config, read_captions(config)


def test_real_images_have_their_annotated_size_and_the_hash_of_their_bytes(shared_data):
    root = shared_data / "coco"
    captions = read_captions(DatasetConfig(name="coco", root=root, parts=PARTS))
    images = inspect_images(captions, root)
    assert images.dtypes.astype(str).to_dict() == {
        "image_id": "int64",
        "file_name": "str",
        "part": "str",
        "sha256": "str",
        "bytes": "int64",
        "width_px": "int64",
        "height_px": "int64",
        "error": "str",
    }
    assert len(images) == 280
    assert set(images["error"]) == {""}
    annotated = captions.drop_duplicates("image_id")[["image_id", "width_px", "height_px"]].reset_index(drop=True)
    pd.testing.assert_frame_equal(images[["image_id", "width_px", "height_px"]], annotated)
    for found in images.iloc[::40].itertuples():
        content = (root / found.file_name).read_bytes()
        assert (found.sha256, found.bytes) == (hashlib.sha256(content).hexdigest(), len(content))


def test_broken_images_are_rows_with_one_reason_each(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "sideways.jpg").write_bytes(jpeg("red", exif=exif))
    (tmp_path / "cut.jpg").write_bytes(jpeg("red")[:-40])
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "page.jpg").write_bytes(b"<html>")
    (tmp_path / "folder.jpg").mkdir()
    outside = tmp_path.parent / "outside.jpg"
    outside.write_bytes(jpeg("red"))
    names = ("sideways.jpg", "cut.jpg", "empty.jpg", "page.jpg", "folder.jpg", "absent.jpg")
    escapes = ("../outside.jpg", str(outside), "a/../../outside.jpg", "nul\0.jpg")
    images = inspect_images(table_of(*names, *escapes), tmp_path)
    assert images[["width_px", "height_px"]].iloc[0].tolist() == [100, 200]
    expected = [
        "",
        "cannot be decoded: image file is truncated",
        "the file is empty (0 bytes)",
        "not a readable image",
        "not a regular file",
        "the file is missing",
        *["refused: the file name leads out of the data set's folder"] * 3,
        "embedded null byte",
    ]
    for found, start in zip(images["error"], expected, strict=True):
        assert found.startswith(start)
        assert bool(found) == bool(start)
    unusable = images.iloc[1:]
    assert (unusable["width_px"] == 0).all()
    assert (unusable["sha256"].iloc[3:] == "").all()  # those that were not read
    assert unusable["sha256"].iloc[0] == hashlib.sha256((tmp_path / "cut.jpg").read_bytes()).hexdigest()


def test_each_image_of_a_part_is_one_row_whatever_its_captions(tmp_path):
    (tmp_path / "a.jpg").write_bytes(jpeg("red"))
    (tmp_path / "ü 犬.jpg").write_bytes(jpeg("blue"))
    captions = pd.concat([table_of("a.jpg", "ü 犬.jpg")] * 3, ignore_index=True)
    images = inspect_images(captions, tmp_path)
    assert images["file_name"].tolist() == ["a.jpg", "ü 犬.jpg"]
    assert (images["error"] == "").all()


def test_cached_files_are_not_read_until_they_change(tmp_path):
    root, cache = tmp_path / "data", tmp_path / "cache" / "facts.parquet"
    root.mkdir()
    for name, colour in (("a.jpg", "red"), ("b.jpg", "blue")):
        (root / name).write_bytes(jpeg(colour))
    captions = table_of("a.jpg", "b.jpg")
    first = inspect_images(captions, root, cache_path=cache)
    assert [path.name for path in cache.parent.iterdir()] == ["facts.parquet"]

    stamp = (root / "a.jpg").stat()
    (root / "a.jpg").write_bytes(b"\0" * stamp.st_size)  # a change that only reading can detect
    os.utime(root / "a.jpg", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    pd.testing.assert_frame_equal(inspect_images(captions, root, cache_path=cache), first)

    os.utime(root / "a.jpg", ns=(stamp.st_atime_ns, stamp.st_mtime_ns + 1))
    (root / "b.jpg").write_bytes(jpeg("blue", size=(60, 40)))
    changed = inspect_images(captions, root, cache_path=cache)
    assert changed["error"].iloc[0].startswith("not a readable image")
    assert changed[["width_px", "height_px"]].iloc[1].tolist() == [60, 40]


def test_missing_image_is_looked_up_again_in_spite_of_the_cache(tmp_path):
    cache = tmp_path / "facts.parquet"
    (tmp_path / "b.jpg").write_bytes(jpeg("blue"))
    captions = table_of("a.jpg", "b.jpg")
    assert inspect_images(captions, tmp_path, cache_path=cache)["error"].tolist() == [
        f"the file is missing: {tmp_path}/a.jpg",
        "",
    ]
    (tmp_path / "a.jpg").write_bytes(jpeg("red"))
    assert inspect_images(captions, tmp_path, cache_path=cache)["error"].tolist() == ["", ""]
    (tmp_path / "b.jpg").unlink()
    assert inspect_images(captions, tmp_path, cache_path=cache)["error"].tolist() == [
        "",
        f"the file is missing: {tmp_path}/b.jpg",
    ]


def test_inspecting_a_few_images_keeps_the_cached_facts_of_the_others(tmp_path):
    cache = tmp_path / "facts.parquet"
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(jpeg("red"))
        inspect_images(table_of(name), tmp_path, cache_path=cache)
    assert sorted(pq.read_table(cache)["file_name"].to_pylist()) == ["a.jpg", "b.jpg"]


@pytest.mark.parametrize("damage", ["garbage", "other table", "cut"])
def test_damaged_cache_is_rebuilt(tmp_path, damage, caplog):
    cache = tmp_path / "facts.parquet"
    (tmp_path / "a.jpg").write_bytes(jpeg("red"))
    first = inspect_images(table_of("a.jpg"), tmp_path, cache_path=cache)
    whole = cache.read_bytes()
    if damage == "other table":
        pd.DataFrame({"file_name": ["a.jpg"]}).to_parquet(cache)
    else:
        cache.write_bytes(b"garbage" if damage == "garbage" else whole[:-10])
    pd.testing.assert_frame_equal(inspect_images(table_of("a.jpg"), tmp_path, cache_path=cache), first)
    assert pq.read_table(cache)["sha256"].to_pylist() == first["sha256"].tolist()
    assert ("will be rebuilt" in caplog.text) == (damage != "other table")


def test_cache_that_cannot_be_written_is_a_storage_error(tmp_path):
    (tmp_path / "a.jpg").write_bytes(jpeg("red"))
    with pytest.raises(StorageError, match="cannot write"):
        inspect_images(table_of("a.jpg"), tmp_path, cache_path=tmp_path / "a.jpg" / "deep" / "facts.parquet")


def test_number_of_threads_changes_nothing(coco, monkeypatch):
    config, captions = coco
    monkeypatch.setattr(inspection, "_THREADS", 1)
    one = inspect_images(captions, config.root)
    monkeypatch.setattr(inspection, "_THREADS", 4)
    pd.testing.assert_frame_equal(inspect_images(captions, config.root), one)


def test_progress_goes_to_stderr_only_if_requested(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    (tmp_path / "a.jpg").write_bytes(jpeg("red"))
    inspect_images(table_of("a.jpg"), tmp_path)
    assert capsys.readouterr() == ("", "")
    inspect_images(table_of("a.jpg"), tmp_path, progress=True)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "inspecting: 100%" in shown.err


def test_manifest_counts_images_and_captions(coco):
    config, captions = coco
    (config.root / "val2017" / captions["file_name"].iloc[-1].split("/")[1]).unlink()
    manifest = build_manifest(captions, inspect_images(captions, config.root), config)
    assert (manifest.n_images, manifest.n_captions) == (280, 1400)
    assert manifest.n_images_of_part == {"train": 80, "val": 200}
    assert manifest.unreadable_images == 1
    assert (
        manifest.annotations_sha256["val"]
        == hashlib.sha256((config.root / "annotations" / "captions_val2017.json").read_bytes()).hexdigest()
    )
    assert manifest.mean_caption_characters == pytest.approx(sum(map(len, captions["caption"])) / 1400)


def test_data_version_depends_on_content_not_on_path_or_time(coco, tmp_path):
    config, captions = coco

    def version(of):
        captions = read_captions(of)
        return build_manifest(captions, inspect_images(captions, of.root), of).version

    original = version(config)
    moved = tmp_path / "elsewhere"
    shutil.copytree(config.root, moved, copy_function=shutil.copyfile)
    assert version(config.model_copy(update={"root": moved})) == original
    (moved / captions["file_name"].iloc[0]).write_bytes(jpeg("red"))
    assert version(config.model_copy(update={"root": moved})) != original
    annotations = config.root / "annotations" / "captions_train2017.json"
    annotations.write_bytes(annotations.read_bytes() + b" ")
    assert version(config) != original


def test_a_change_in_any_file_of_a_part_is_another_data_version(coco):
    config, _ = coco
    extra = config.root / "annotations" / "more.json"
    shutil.copyfile(config.root / "annotations" / "captions_train2017.json", extra)
    two = [*config.parts["train"], PartConfig(annotations="annotations/more.json", images="train2017")]
    config = DatasetConfig(name="coco", root=config.root, parts={**config.parts, "train": two})

    def manifest():
        captions = read_captions(config)
        return build_manifest(captions, inspect_images(captions, config.root), config)

    before, quick = manifest(), quick_fingerprint(config)
    assert before.n_images_of_part == {"train": 160, "val": 200}
    extra.write_bytes(extra.read_bytes() + b" ")
    assert manifest().version != before.version
    assert manifest().annotations_sha256["val"] == before.annotations_sha256["val"]
    assert quick_fingerprint(config) != quick


def test_manifest_of_a_hub_data_set_hashes_its_captions(coco):
    config, captions = coco
    parts = {part: {"annotations": part, "images": f"{part}2017"} for part in ("train", "val")}
    on_hub = DatasetConfig(name="hub", layout="coco2017_table", root=config.root, hub_dataset="some/name", parts=parts)
    images = inspect_images(captions, config.root)
    manifest = build_manifest(captions, images, on_hub)
    assert build_manifest(captions.sample(frac=1, random_state=0), images, on_hub) == manifest
    captions.loc[0, "caption"] = "Another caption."
    changed = build_manifest(captions, images, on_hub)
    assert changed.annotations_sha256["train"] != manifest.annotations_sha256["train"]
    assert changed.annotations_sha256["val"] == manifest.annotations_sha256["val"]


def test_quick_fingerprint_changes_with_configuration_annotations_and_images(coco):
    config, captions = coco
    seen = [quick_fingerprint(config)]
    assert quick_fingerprint(config) == seen[0]
    seen.append(quick_fingerprint(config.model_copy(update={"max_images": 5})))
    image = config.root / captions["file_name"].iloc[0]
    os.utime(image, ns=(1, 1))
    seen.append(quick_fingerprint(config))
    image.unlink()
    seen.append(quick_fingerprint(config))
    (config.root / "val2017" / "new.jpg").write_bytes(b"")
    seen.append(quick_fingerprint(config))
    annotations = config.root / "annotations" / "captions_val2017.json"
    annotations.write_bytes(annotations.read_bytes() + b" ")
    seen.append(quick_fingerprint(config))
    shutil.rmtree(config.root / "val2017")
    seen.append(quick_fingerprint(config))
    assert len(set(seen)) == 7


def test_quick_fingerprint_needs_no_data_on_disk(tmp_path):
    hub = DatasetConfig(name="a", layout="coco2017_table", hub_dataset="some/name", parts=PARTS)
    other = hub.model_copy(update={"hub_dataset": "other/name"})
    absent = DatasetConfig(name="a", root=tmp_path / "absent", parts=PARTS)
    demo = DatasetConfig(name="demo", layout="demo")
    assert len({quick_fingerprint(config) for config in (hub, other, absent, demo)}) == 4


def test_flickr_images_all_decode(shared_data, caplog):
    caplog.set_level(logging.WARNING)
    root = shared_data / "flickr8k"
    parts = {"val": {"annotations": "annotations/captions_val.json", "images": "val"}}
    captions = read_captions(DatasetConfig(name="flickr8k", root=root, parts=parts))
    images = inspect_images(captions, root)
    assert images[["error", "width_px", "height_px"]].drop_duplicates().to_numpy().tolist() == [["", 224, 224]]
    assert len(images) == 1000
    assert caplog.text == ""
