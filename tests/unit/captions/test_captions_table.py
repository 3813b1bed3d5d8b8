"""Both layouts give one captions table, and every fault of the files is named."""

import json
import shutil
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from image_finder.components.captions.captioned import CaptionedImages
from image_finder.components.captions.captions_table import part_files, read_captions
from image_finder.components.captions.manifest import quick_fingerprint
from image_finder.components.captions.splits import extra_sets_apart, split_captions
from image_finder.components.configs import DatasetConfig, EvaluationConfig, PartConfig, SplitConfig
from image_finder.components.errors import ConfigError, DataError
from image_finder.pipelines import run_config

COLUMNS = {
    "image_id": "int64",
    "caption_id": "int64",
    "file_name": "str",
    "caption": "str",
    "width_px": "int64",
    "height_px": "int64",
    "license": "int64",
    "part": "str",
}


def image(image_id, **changes):
    values = {"id": image_id, "file_name": f"{image_id}.jpg", "width": 640, "height": 480, "license": 4}
    return {**values, **changes}


def annotation(caption_id, image_id, caption="A dog."):
    return {"id": caption_id, "image_id": image_id, "caption": caption}


def write_annotations(root, contents):
    for name, content in contents.items():
        text = (
            content
            if isinstance(content, str)
            else json.dumps(dict(zip(("images", "annotations"), content, strict=True)))
        )
        (root / f"{name}.json").write_text(text, encoding="utf-8")


def coco_at(root, parts, **changes):
    """Write {part: (images, annotations)} or {part: text} as COCO JSON and return the configuration."""
    write_annotations(root, parts)
    named = {part: {"annotations": f"{part}.json", "images": f"{part}2017"} for part in parts}
    return DatasetConfig(name="small", root=root, parts=named, **changes)


def row(image_id, ids, captions, **changes):
    values = {"license": 4, "file_name": f"{image_id}.jpg", "height": 480, "width": 640, "image_id": image_id}
    return {**values, "coco_url": "u", "ids": ids, "captions": captions, **changes}


def table_at(root, rows, **changes):
    pq.write_table(pa.Table.from_pylist(rows), root / "train.parquet")
    parts = {"train": {"annotations": "train.parquet", "images": "train2017"}}
    return DatasetConfig(name="small", layout="coco2017_table", root=root, parts=parts, **changes)


def shared_config(root, layout, annotations, **changes):
    parts = {part: {"annotations": place, "images": f"{part}2017"} for part, place in annotations.items()}
    return DatasetConfig(name="coco", layout=layout, root=root, parts=parts, **changes)


def shared_json(shared_data, **changes):
    places = {part: f"annotations/captions_{part}2017.json" for part in ("train", "val")}
    return shared_config(shared_data / "coco", "coco", places, **changes)


def test_captions_are_joined_with_their_image_and_sorted_by_part_image_and_caption(tmp_path):
    config = coco_at(
        tmp_path,
        {
            "val": ([image(5)], [annotation(1, 5, "Ein Käfer 🐞")]),
            "train": (
                [image(9, license=1), image(2, width=100)],
                [annotation(8, 9), annotation(4, 9), annotation(7, 2)],
            ),
        },
    )
    captions = read_captions(config)
    assert captions.dtypes.astype(str).to_dict() == COLUMNS
    assert captions.to_numpy().tolist() == [
        [2, 7, "train2017/2.jpg", "A dog.", 100, 480, 4, "train"],
        [9, 4, "train2017/9.jpg", "A dog.", 640, 480, 1, "train"],
        [9, 8, "train2017/9.jpg", "A dog.", 640, 480, 1, "train"],
        [5, 1, "val2017/5.jpg", "Ein Käfer 🐞", 640, 480, 4, "val"],
    ]


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))


@pytest.mark.usefixtures("hub_cache")
def test_json_parquet_and_hub_table_of_real_coco_give_the_identical_captions(shared_data, tmp_path):
    from_json = read_captions(shared_json(shared_data))
    tables = {"train": "huggingface/train.parquet", "val": "huggingface/validation.parquet"}
    from_parquet = read_captions(shared_config(shared_data / "coco", "coco2017_table", tables))
    hub = tmp_path / "hub"
    hub.mkdir()
    for path in (shared_data / "coco" / "huggingface").glob("*.parquet"):
        shutil.copyfile(path, hub / path.name)
    splits = {"train": "train", "val": "validation"}
    on_hub = shared_config(shared_data / "coco", "coco2017_table", splits, hub_dataset=str(hub))
    from_hub = read_captions(on_hub)
    pd.testing.assert_frame_equal(from_json, from_parquet)
    pd.testing.assert_frame_equal(from_json, from_hub)
    assert from_json.groupby("part")["image_id"].nunique().to_dict() == {"train": 80, "val": 200}
    assert from_json["part"].value_counts().to_dict() == {"train": 400, "val": 1000}
    assert all((shared_data / "coco" / name).is_file() for name in from_json["file_name"])


def test_full_val2017_is_read_though_most_images_are_absent(shared_data):
    places = {"val": "annotations_full/captions_val2017.json"}
    captions = read_captions(shared_config(shared_data / "coco", "coco", places))
    per_image = captions.groupby("image_id").size().value_counts().to_dict()
    assert (len(captions), per_image) == (25014, {5: 4987, 6: 12, 7: 1})


def test_max_images_keeps_the_first_images_of_each_part_with_all_their_captions(shared_data):
    all_of_them = read_captions(shared_json(shared_data))
    some = read_captions(shared_json(shared_data, max_images=7))
    for part in ("train", "val"):
        whole = all_of_them[all_of_them["part"] == part]
        first = sorted(whole["image_id"].unique())[:7]
        assert some.loc[some["part"] == part, "image_id"].unique().tolist() == first
        assert (some["part"] == part).sum() == whole["image_id"].isin(first).sum()


def test_max_images_above_their_number_keeps_all(tmp_path):
    config = coco_at(tmp_path, {"train": ([image(1)], [annotation(1, 1)])}, max_images=50)
    assert len(read_captions(config)) == 1


def test_demo_layout_reads_its_own_folder_as_train(tmp_path):
    (tmp_path / "annotations").mkdir()
    content = {"images": [image(1)], "annotations": [annotation(1, 1)]}
    (tmp_path / "annotations" / "captions.json").write_text(json.dumps(content))
    captions = read_captions(DatasetConfig(name="demo", layout="demo", root=tmp_path))
    assert captions[["file_name", "part"]].to_numpy().tolist() == [["images/1.jpg", "train"]]


def test_unknown_size_and_license_are_zero_and_null_captions_empty(tmp_path):
    bare = {"id": 1, "file_name": "1.jpg"}
    config = coco_at(tmp_path, {"train": ([bare, image(2, width=None)], [annotation(1, 1, None), annotation(2, 2)])})
    captions = read_captions(config)
    assert captions[["width_px", "height_px", "license"]].to_numpy().tolist() == [[0, 0, 0], [0, 480, 4]]
    assert captions["caption"].tolist() == ["", "A dog."]
    nulls = read_captions(table_at(tmp_path, [row(1, [1], [None], width=None), row(2, [2], ["A cat."])]))
    assert nulls[["caption", "width_px"]].to_numpy().tolist() == [["", 0], ["A cat.", 640]]


def test_images_may_be_in_root_itself_and_names_that_lead_out_are_kept(tmp_path):
    names = [image(1), image(2, file_name="../2.jpg"), image(3, file_name="/etc/3.jpg")]
    (tmp_path / "c.json").write_text(
        json.dumps({"images": names, "annotations": [annotation(i, i) for i in (1, 2, 3)]})
    )

    def names_below(folder):
        parts = {"train": {"annotations": "c.json", "images": folder}}
        return read_captions(DatasetConfig(name="small", root=tmp_path, parts=parts))["file_name"].tolist()

    assert names_below(".") == ["1.jpg", "../2.jpg", "/etc/3.jpg"]
    assert names_below("./deep/er/") == ["deep/er/1.jpg", "deep/er/../2.jpg", "/etc/3.jpg"]


def test_table_whose_file_names_contain_the_folder_gives_the_same_captions(tmp_path):
    plain = read_captions(table_at(tmp_path, [row(1, [3, 4], ["a", "b"])]))
    prefixed = read_captions(table_at(tmp_path, [row(1, [3, 4], ["a", "b"], file_name="train2017/1.jpg")]))
    pd.testing.assert_frame_equal(plain, prefixed)


TOOLS: dict[str, dict[int, dict[str, Any]]] = {
    "folder": {1: {"file_name": "train2017/1.jpg"}, 2: {"file_name": "train2017/2.jpg"}},
    "backslash": {1: {"file_name": ".\\1.jpg"}, 2: {"file_name": "train2017\\2.jpg"}},
    "case": {1: {"file_name": "1.JPG"}, 2: {"file_name": "2.Jpg"}},
    "float": {1: {"width": 640.0, "height": 480.0, "license": 4.0}, 2: {"width": 640.0}},
    "license": {1: {"license": "Attribution License"}, 2: {"license": "4"}},
}


@pytest.mark.parametrize("tool", TOOLS)
def test_files_of_other_tools_give_the_same_captions_in_both_layouts(tmp_path, tool):
    (tmp_path / "train2017").mkdir()
    for image_id in (1, 2):
        (tmp_path / "train2017" / f"{image_id}.jpg").write_bytes(b"x")
    notes = [annotation(3, 1), annotation(4, 2, "A cat.")]
    plain = read_captions(coco_at(tmp_path, {"train": ([image(1), image(2)], notes)}))
    content = {
        "licenses": [{"id": 4, "name": "Attribution License", "url": "http://creativecommons.org/licenses/by/2.0/"}],
        "images": [image(image_id, **changes) for image_id, changes in TOOLS[tool].items()],
        "annotations": notes,
    }
    found = read_captions(coco_at(tmp_path, {"train": json.dumps(content)}))
    pd.testing.assert_frame_equal(found, plain)
    changed = [{**changes} for changes in TOOLS[tool].values()]
    if tool == "license":  # a table has no list of licences
        changed = [{"license": "CC BY 4.0"}, {"license": "4"}]
        plain.loc[0, "license"] = 0
    rows = [row(1, [3], ["A dog."], **changed[0]), row(2, [4], ["A cat."], **changed[1])]
    pd.testing.assert_frame_equal(read_captions(table_at(tmp_path, rows)), plain)


def test_ids_may_be_integral_floats_and_nothing_else(tmp_path):
    config = coco_at(tmp_path, {"train": ([image(1.0)], [annotation(3.0, 1.0)])})
    assert read_captions(config)[["image_id", "caption_id"]].to_numpy().tolist() == [[1, 3]]
    for value, shown in ((1.5, "1.5"), (float("nan"), "nan"), (1e300, "1e.300")):
        config = coco_at(tmp_path, {"train": ([image(1, width=640), image(2, width=value)], [annotation(3, 1)])})
        with pytest.raises(DataError, match=rf"images\[\].width: entry 1 must be int, found {shown}"):
            read_captions(config)


def test_a_licence_that_is_not_listed_is_unknown_and_logged(tmp_path, caplog):
    config = coco_at(
        tmp_path,
        {"train": ([image(1, license="CC BY 4.0"), image(2, license="")], [annotation(3, 1), annotation(4, 2)])},
    )
    assert read_captions(config)["license"].tolist() == [0, 0]
    assert "'CC BY 4.0' has no id in the list of licences and counts as unknown" in caplog.text


def test_an_ambiguous_file_name_is_an_error_with_the_file_it_is_in(tmp_path):
    (tmp_path / "train2017").mkdir()
    for name in ("a.jpg", "A.jpg"):
        (tmp_path / "train2017" / name).write_bytes(b"x")
    config = coco_at(tmp_path, {"train": ([image(1, file_name="A.JPG")], [annotation(3, 1)])})
    with pytest.raises(DataError, match=r"train.json: file name 'A.JPG' matches both 'A.jpg' and"):
        read_captions(config)


def test_captions_of_unlisted_images_are_refused_with_count_and_first_ids(tmp_path):
    annotations = [annotation(1, 1), *(annotation(10 + number, 100 + number) for number in range(7))]
    config = coco_at(tmp_path, {"train": ([image(1)], annotations)})
    with pytest.raises(
        DataError, match=r"7 of 8 captions point to 7 image ids \(100, 101, 102, 103, 104, \.\.\.\) not"
    ):
        read_captions(config)


def test_images_without_captions_are_skipped_and_logged(tmp_path, caplog):
    config = coco_at(tmp_path, {"train": ([image(1), image(2)], [annotation(1, 1)])})
    assert read_captions(config)["image_id"].tolist() == [1]
    assert "skipped 1 image id (2) without a caption" in caplog.text


def test_images_listed_twice_count_once_if_equal_and_are_refused_if_not(tmp_path):
    twice = coco_at(tmp_path, {"train": ([image(1), image(1)], [annotation(1, 1)])})
    assert len(read_captions(twice)) == 1
    differing = coco_at(tmp_path, {"train": ([image(1), image(1, file_name="other.jpg")], [annotation(1, 1)])})
    with pytest.raises(DataError, match=r"1 image id \(1\) listed twice with different contents"):
        read_captions(differing)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"images": [', "not valid JSON"),
        ("[1]", "expected an object with images and annotations, found a list"),
        ('{"images": [], "info": {}}', "no key 'annotations', so this is no COCO captions file; found: images, info"),
        ('{"images": {}, "annotations": []}', "'images' must be a list, found a dict"),
        (([image(1)], []), "no captions for part 'train' of data set 'small'"),
        (([], []), "no captions for part 'train' of data set 'small'"),
        (([{"id": 1}], [annotation(1, 1)]), r"images\[0\] has no key 'file_name'; found: id"),
        (
            ([image(1)], [annotation(1, 1), {"id": 2, "image_id": 1, "bbox": []}]),
            r"annotations\[1\] has no key 'caption'; found: bbox, id, image_id",
        ),
        (([image(1)], ["text"]), r"annotations\[0\] must be an object, found a str"),
        (([image("1")], [annotation(1, 1)]), r"images\[\]\.id: entry 0 must be int, found '1'"),
        (([image(1)], [annotation(1, 1.5)]), r"annotations\[\]\.image_id: entry 0 must be int, found 1\.5"),
        (([image(1)], [annotation(True, 1)]), r"annotations\[\]\.id: entry 0 must be int, found True"),
        (
            ([image(1)], [annotation(1, 1), annotation(None, 1)]),
            r"annotations\[\]\.id: entry 1 must be int, found None",
        ),
        (([image(2**63)], [annotation(1, 1)]), r"images\[\]\.id: a value does not fit into 64 bits"),
        (([image(1, width="wide")], [annotation(1, 1)]), r"images\[\]\.width: entry 0 must be int, found 'wide'"),
        (([image(1)], [annotation(1, 1, 7)]), r"annotations\[\]\.caption: entry 0 must be str, found 7"),
        (([image(1)], [annotation(1, 1, "\ud83d")]), "half a surrogate pair"),
    ],
)
def test_malformed_captions_file_is_refused_with_what_was_found(tmp_path, content, message):
    config = coco_at(tmp_path, {"train": content})
    with pytest.raises(DataError, match=message) as refused:
        read_captions(config)
    assert str(tmp_path / "train.json") in str(refused.value)
    assert "\n" not in str(refused.value)


def test_bytes_that_are_no_text_are_refused(tmp_path):
    config = coco_at(tmp_path, {"train": "{}"})
    (tmp_path / "train.json").write_bytes(b'{"images": "\xff\xfe\x00"')
    with pytest.raises(DataError, match="not valid JSON"):
        read_captions(config)


@pytest.mark.parametrize("layout", ["coco", "coco2017_table"])
def test_missing_file_is_named(tmp_path, layout):
    config = shared_config(tmp_path, layout, {"train": "absent.file"})
    with pytest.raises(DataError, match=r"absent\.file: no such file; check the data set's root"):
        read_captions(config)


@pytest.mark.parametrize("layout", ["coco", "coco2017_table"])
def test_missing_root_is_named(layout):
    config = DatasetConfig(name="small", layout=layout, parts={"train": {"annotations": "a", "images": "b"}})
    with pytest.raises(DataError, match="data set 'small': root is not set"):
        read_captions(config)


def test_table_on_the_hub_needs_no_root():
    parts = {name: {"annotations": name, "images": f"./{name}2017/"} for name in ("val", "train")}
    config = DatasetConfig(name="hub", layout="coco2017_table", hub_dataset="phiyodr/coco2017", parts=parts)
    resolved = part_files(config)
    assert [(part.name, part.annotations, part.images) for part in resolved] == [
        ("train", None, "train2017"),
        ("val", None, "val2017"),
    ]


def several_at(root, contents, part_of_file):
    """Write {file: (images, annotations)} and return the configuration of {file: its part}."""
    write_annotations(root, contents)
    named = {}
    for file, part in part_of_file.items():
        named.setdefault(part, []).append({"annotations": f"{file}.json", "images": file})
    return DatasetConfig(name="several", root=root, parts=named)


def test_files_of_a_part_are_joined_and_keep_unique_ids(tmp_path):
    contents = {
        "a": ([image(3)], [annotation(1, 3)]),
        "b": ([image(2), image(7)], [annotation(9, 2), annotation(8, 7)]),
        "c": ([image(5)], [annotation(1, 5)]),
    }
    captions = read_captions(several_at(tmp_path, contents, {"a": "train", "b": "train", "c": "val"}))
    assert captions[["image_id", "caption_id", "file_name", "part"]].to_numpy().tolist() == [
        [2, 9, "b/2.jpg", "train"],
        [3, 1, "a/3.jpg", "train"],
        [7, 8, "b/7.jpg", "train"],
        [5, 1, "c/5.jpg", "val"],
    ]


def test_ids_of_a_further_file_that_another_file_has_are_shifted_above_all_others(tmp_path):
    contents = {
        "a": ([image(1), image(2)], [annotation(1, 1), annotation(2, 2)]),
        "b": ([image(1), image(4)], [annotation(2, 1), annotation(5, 4)]),
        "c": ([image(4)], [annotation(30, 4)]),
        "d": ([image(9)], [annotation(20, 9)]),
    }
    config = several_at(tmp_path, contents, {"a": "train", "b": "train", "c": "train", "d": "val"})
    captions = read_captions(config)
    assert captions[["image_id", "caption_id", "file_name", "part"]].to_numpy().tolist() == [
        [1, 1, "a/1.jpg", "train"],
        [2, 2, "a/2.jpg", "train"],
        [4, 30, "c/4.jpg", "train"],  # free, since those of b were raised
        [10, 21, "b/1.jpg", "train"],
        [13, 24, "b/4.jpg", "train"],
        [9, 20, "d/9.jpg", "val"],
    ]
    assert read_captions(config.model_copy(update={"max_images": 3}))["file_name"].str[0].tolist() == [*"aacd"]


def test_extra_sets_are_read_after_the_parts_with_ids_that_no_part_has(tmp_path):
    contents = {
        "a": ([image(1), image(2)], [annotation(1, 1), annotation(2, 2)]),
        "b": ([image(2)], [annotation(1, 2), annotation(7, 2)]),
        "c": ([image(5)], [annotation(9, 5)]),
    }
    sets = {name: PartConfig(annotations=f"{name}.json", images=name) for name in ("b", "c")}
    config = several_at(tmp_path, contents, {"a": "train"})
    captions = read_captions(config, sets)
    assert captions[["image_id", "caption_id", "file_name", "part"]].to_numpy().tolist() == [
        [1, 1, "a/1.jpg", "train"],
        [2, 2, "a/2.jpg", "train"],
        [3, 3, "b/2.jpg", "b"],
        [3, 9, "b/2.jpg", "b"],
        [5, 10, "c/5.jpg", "c"],  # its caption id 9 was taken by b
    ]
    main, extra = extra_sets_apart(captions, sets)
    assert main["part"].unique().tolist() == ["train"]
    found = CaptionedImages(extra, pd.DataFrame(), tmp_path).by_part()
    assert {name: each.captions["caption_id"].tolist() for name, each in found.items()} == {"b": [3, 9], "c": [10]}
    with pytest.raises(DataError, match="evaluation set 'd' has no valid caption"):
        extra_sets_apart(captions, [*sets, "d"])
    assert quick_fingerprint(config, sets) != quick_fingerprint(config)


def test_the_same_id_in_two_parts_of_one_file_each_is_refused(tmp_path):
    contents = {"a": ([image(1)], [annotation(1, 1)]), "b": ([image(1)], [annotation(1, 1)])}
    captions = read_captions(several_at(tmp_path, contents, {"a": "train", "b": "val"}))
    with pytest.raises(DataError, match=r"1 image id in more than one part \(1\)"):
        split_captions(captions, SplitConfig())


def test_an_annotation_file_named_twice_or_none_at_all_is_refused():
    file = {"annotations": "a.json", "images": "a"}
    with pytest.raises(ConfigError, match="part 'train' names an annotation file twice"):
        DatasetConfig.parse({"name": "mine", "parts": {"train": [file, file]}})
    with pytest.raises(ConfigError, match=r"parts.train: .* at least 1 item"):
        DatasetConfig.parse({"name": "mine", "parts": {"train": []}})


def test_two_real_data_sets_are_one_part_with_every_caption_once(shared_data):
    parameters = run_config.load("training", "starter")["parameters"]
    config = DatasetConfig.parse({**parameters["dataset"], "root": shared_data})
    captions = read_captions(config, EvaluationConfig.parse(parameters["evaluation"]).extra_sets)
    assert captions[captions["part"] == "coco"]["image_id"].nunique() == 200
    train = captions[captions["part"] == "train"]
    assert train["image_id"].nunique() == 7428
    assert not train["caption_id"].duplicated().any()
    assert train["file_name"].str.split("/").str[0].value_counts().to_dict() == {
        "flickr8k": 30000,
        "coco_more": 1954,
        "coco": 400,
    }
    assert not set(train["image_id"]) & set(captions.loc[captions["part"] == "val", "image_id"])


def test_table_without_a_column_is_refused_with_what_was_found(tmp_path):
    lacking = row(1, [1], ["a"])
    del lacking["ids"], lacking["width"]
    with pytest.raises(
        DataError, match=r"no column width, ids; found: captions, coco_url, file_name, height, image_id"
    ):
        read_captions(table_at(tmp_path, [lacking]))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row(1, [1], ["a"]), row(2, [2, 3], ["b"])], r"ids and captions differ in number for 1 image id \(2\)"),
        ([row(1, 1, "a")], "column ids must hold lists, found int64"),
        ([row("x", [1], ["a"])], "column image_id: entry 0 must be int, found 'x'"),
        ([row(1, [1], [5])], "column captions: entry 0 must be str, found 5"),
        ([row(1, [1, None], ["a", "b"])], "column ids: entry 1 must be int, found None"),
        ([row(1, [1], ["a"], width="wide")], "column width: entry 0 must be int, found 'wide'"),
        ([row(None, [1], ["a"]), row(2, [2], ["b"])], "column image_id: entry 0 must be int, found None"),
        ([row(1, [], []), row(2, None, None)], "no captions for part 'train' of data set 'small'"),
    ],
)
def test_malformed_table_is_refused_with_what_was_found(tmp_path, rows, message):
    with pytest.raises(DataError, match=message):
        read_captions(table_at(tmp_path, rows))


def test_file_that_is_no_parquet_is_refused(tmp_path):
    config = table_at(tmp_path, [row(1, [1], ["a"])])
    (tmp_path / "train.parquet").write_bytes(b"PAR1 nothing of the kind")
    with pytest.raises(DataError, match=r"train\.parquet: not a readable Parquet file"):
        read_captions(config)


@pytest.mark.usefixtures("hub_cache")
def test_hub_split_that_does_not_exist_is_refused_with_what_to_do(tmp_path):
    pq.write_table(pa.Table.from_pylist([row(1, [1], ["a"])]), tmp_path / "train.parquet")
    config = shared_config(None, "coco2017_table", {"val": "nonsense"}, hub_dataset=str(tmp_path))
    with pytest.raises(
        DataError, match=r"cannot load split 'nonsense' of .*; check name, split and network"
    ) as refused:
        read_captions(config)
    assert "\n" not in str(refused.value)
