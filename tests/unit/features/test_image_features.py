"""Features of frozen trunks: ONNX Runtime's are torch's, and a killed extraction ends where an uninterrupted one ends."""

import json

import numpy as np
import pytest
import torch

from image_finder.components.captions.captioned import CaptionedImages
from image_finder.components.configs import EmbeddingConfig, ModelConfig
from image_finder.components.errors import DataError
from image_finder.components.features import frozen_trunk as features
from image_finder.components.features.frozen_trunk import (
    extract_image_features,
    extract_text_features,
    image_features_cache,
    text_features_cache,
)
from image_finder.components.storage import sha256_of_file
from image_finder.components.training.sources import (
    CachedImages,
    CachedTexts,
    DecodedImages,
    PairedSet,
    TokenisedTexts,
    embed_all,
    embed_rows,
)
from image_finder.components.training.trainer import FeatureSettings, extract_features, untrained

CPU = EmbeddingConfig(device="cpu", batch_images=8)


@pytest.fixture(scope="module")
def photos(shared_data):
    folder = shared_data / "flickr8k" / "val"
    return sorted(folder.glob("*.jpg"))[:60]


@pytest.mark.slow
@pytest.mark.parametrize(
    "image",
    [
        {},  # the packaged lite0, heads only
        {"trained_stages": 2, "input_px": 64},
        {
            "trunk": "efficientnet_b0",
            "weights": "random",
            "trained_stages": 1,
            "input_px": 64,
        },  # squeeze-and-excitation, SiLU
    ],
)
def test_cached_image_features_are_torchs_to_half_precision(photos, tiny_model, tmp_path, image):
    values = {**tiny_model, "image": {"pool_width": 32, "pool_heads": 4, "input_px": 96, **image}}
    assembled = untrained(ModelConfig.parse(values), 0)
    cache = image_features_cache(assembled, tmp_path)
    paths = photos[:10]
    keys = extract_image_features(assembled, paths, cache, CPU)
    assert keys == {path: sha256_of_file(path) for path in paths}
    cached = CachedImages([cache], [keys[path] for path in paths]).load(np.arange(10))
    pixels = DecodedImages(paths, assembled.preprocess).load(np.arange(10))
    with torch.no_grad():
        expected = assembled.model.image_tower.features(pixels)
        vectors = assembled.model.image_tower.eval()(pixels)[0]
        from_cache = assembled.model.image_tower.embed_features(cached.float())[0]
    assert cached.dtype == torch.float16
    assert cached.shape == expected.shape
    largest = float(expected.abs().max())
    np.testing.assert_allclose(cached.float(), expected, atol=2e-3 * largest)
    assert expected.std(dim=0).max() > 0.05 * largest, "features tell images apart"
    assert (vectors * from_cache).sum(dim=1).min() > 0.9999


def test_views_are_the_same_from_the_cache_and_from_files(photos, tiny_model, tmp_path):
    assembled = untrained(ModelConfig.parse(tiny_model), 0)
    paths = photos[:6]
    caches = [image_features_cache(assembled, tmp_path, view=view) for view in range(3)]
    for view, cache in enumerate(caches):
        keys = extract_image_features(assembled, paths, cache, CPU, view=view)
    rows, views = np.array([5, 0, 3, 2]), np.array([1, 0, 2, 0])
    pixels = DecodedImages(paths, assembled.preprocess).load(rows, views)
    cached = CachedImages(caches, [keys[path] for path in paths])
    with torch.no_grad():
        expected = assembled.model.image_tower.features(pixels)
    largest = float(expected.abs().max())
    np.testing.assert_allclose(cached.load(rows, views).float(), expected, atol=2e-3 * largest)
    unlike = (cached.load(rows, views).float() - cached.load(rows).float()).abs().amax(dim=(1, 2, 3))
    assert unlike[[0, 2]].min() > 0.05 * largest
    assert unlike[[1, 3]].max() == 0


def embedded(source, model, rows):
    """Vectors (n, dim) of texts by their row, in one batch."""
    loaded = source.load(rows)
    return model.text_tower.embed_features(source.features(model, loaded), loaded.mask)


def test_cached_text_features_are_torchs_to_half_precision(tiny_assembled, tmp_path):
    texts = ["a dog", "two dogs play in the deep snow " * 3, "", "a dog", "naïve 鳥"]
    cache = text_features_cache(tiny_assembled, tmp_path)
    extract_text_features(tiny_assembled, texts, cache, CPU)
    from image_finder.components.features.frozen_trunk import text_keys

    rows = np.array([4, 0, 1, 2, 3])
    cached = CachedTexts(cache, text_keys(texts))
    assert len(cache) == 4, "an equal text is computed once"
    source = TokenisedTexts(texts, tiny_assembled.tokenizer)
    with torch.no_grad():
        model = tiny_assembled.model.eval()
        from_cache = embedded(cached, model, rows)
        expected = embedded(source, model, rows)
    assert torch.equal(cached.load(rows).mask, source.load(rows).mask)
    torch.testing.assert_close(from_cache, expected, atol=2e-3, rtol=0)


@pytest.mark.parametrize("stored", [True, False])
def test_vectors_come_in_the_order_asked_for_whatever_is_read_first(tiny_assembled, scenes, tmp_path, stored):
    texts = ["two dogs play in the deep snow " * 3, "a dog", "a man rides a horse", "a dog", "red", "a cat on a mat"]
    cache = text_features_cache(tiny_assembled, tmp_path)
    extract_text_features(tiny_assembled, texts, cache, CPU)
    from image_finder.components.features.frozen_trunk import text_keys

    source = CachedTexts(cache, text_keys(texts)) if stored else TokenisedTexts(texts, tiny_assembled.tokenizer)
    paths = [scenes.root / "100.png", scenes.root / "101.png", scenes.root / "102.png"]
    data = PairedSet(DecodedImages(paths, tiny_assembled.preprocess), source, np.arange(6) // 2)
    model = tiny_assembled.model
    images, vectors = embed_all(model, data, device=torch.device("cpu"), batch=2)
    with torch.no_grad():
        alone = torch.cat([embedded(source, model, np.array([row])) for row in range(6)]).numpy()
    np.testing.assert_allclose(vectors, alone, atol=1e-5)
    assert np.abs(alone[[0, 1, 2, 4]] - alone[[1, 2, 4, 5]]).max(axis=1).min() > 1e-3, "they tell texts apart"
    rows, picked = np.array([5, 0, 3]), np.array([2, 0])
    some_images, some = embed_rows(model, data, picked, rows, batch=2)
    np.testing.assert_allclose(some, vectors[rows], atol=1e-5)
    np.testing.assert_allclose(some_images, images[picked], atol=1e-5)


def test_a_stem_is_exported_once_and_again_only_if_its_file_was_damaged(tiny_assembled, tmp_path, monkeypatch):
    exported = []
    from image_finder.components.encoders.onnx_graph import export_stem as export

    monkeypatch.setattr(features, "export_stem", lambda *args, **sized: (exported.append(1), export(*args, **sized)))
    cache = text_features_cache(tiny_assembled, tmp_path)
    extract_text_features(tiny_assembled, ["a dog"], cache, CPU)
    extract_text_features(tiny_assembled, ["a cat"], cache, CPU)
    assert len(exported) == 1
    (kept,) = cache.folder.glob("stem-*.onnx")
    kept.write_bytes(kept.read_bytes()[:-100])
    extract_text_features(tiny_assembled, ["a bird"], cache, CPU)
    assert len(exported) == 2
    assert len(cache) == 3


def test_unreadable_images_are_counted_and_named(tiny_assembled, scenes, tmp_path):
    (tmp_path / "empty.jpg").write_bytes(b"")
    good = scenes.root / "100.png"
    paths = [good, tmp_path / "empty.jpg", tmp_path / "absent.jpg"]
    cache = image_features_cache(tiny_assembled, tmp_path / "cache")
    with pytest.raises(DataError, match=r"^2 of 3 images changed .*: empty.jpg: [^\n]*; absent.jpg: [^\n]*; run the"):
        extract_image_features(tiny_assembled, paths, cache, CPU)
    assert sha256_of_file(good) in cache, "the readable one is kept"


def test_another_stem_or_size_has_another_cache(tiny_model, tmp_path):
    def folder(seed=0, **image):
        values = {**tiny_model, "image": {**tiny_model["image"], **image}}
        return image_features_cache(untrained(ModelConfig.parse(values), seed), tmp_path).folder

    assert folder() == folder()
    assert len({folder(), folder(seed=1), folder(input_px=96), folder(trained_stages=1)}) == 4
    assert folder(pool_width=64) == folder(), "heads have no part in the features"


@pytest.mark.slow
def test_an_extraction_killed_again_and_again_ends_like_an_uninterrupted_one(
    photos, tiny_model, tmp_path, run_children
):
    captions = [{"image_id": i, "caption": f"photo number {i % 50}"} for i in range(len(photos))]
    images = [{"image_id": i, "file_name": path.name, "sha256": sha256_of_file(path)} for i, path in enumerate(photos)]
    train = {"captions": captions, "images": images, "root": str(photos[0].parent)}
    made = {"do": "extract", "model": tiny_model, "train": train}
    # a batch of 4 opens rows.bin and keys.tsv once each; the child dies as it opens one of them the n-th time
    kills = [["rows.bin", 3], ["keys.tsv", 6]]
    killed = [{**made, "cache": str(tmp_path / "killed"), "kill": {"open": kill}} for kill in kills]
    run_children([{**made, "cache": str(tmp_path / "whole")}, *killed, {**made, "cache": str(tmp_path / "killed")}])
    contents = []
    assembled = untrained(ModelConfig.parse(tiny_model), 0)
    for name in ("whole", "killed"):
        cache = image_features_cache(assembled, tmp_path / name)
        source = CachedImages([cache], [image["sha256"] for image in images])
        texts = text_features_cache(assembled, tmp_path / name)
        contents.append((source.load(np.arange(len(photos))), len(cache), len(texts)))
    assert contents[0][1:] == contents[1][1:] == (60, 50)
    # batches are cut otherwise after a kill, and ONNX Runtime may sum in another order then
    torch.testing.assert_close(contents[0][0].float(), contents[1][0].float(), atol=2e-3, rtol=2e-3)


def test_features_are_not_computed_twice(scenes, tiny_model, tmp_path):
    settings = FeatureSettings(tmp_path, CPU)
    config = ModelConfig.parse(tiny_model)
    summary = extract_features(config, 0, [scenes, scenes], settings)
    files = {path: path.stat().st_size for path in tmp_path.rglob("*.bin")}
    moved = CaptionedImages(scenes.captions, scenes.images, tmp_path / "nowhere")
    assert extract_features(config, 0, [moved], settings).image_cache == summary.image_cache
    assert {path: path.stat().st_size for path in tmp_path.rglob("*.bin")} == files
    assert json.loads(next(tmp_path.glob("image-*/layout.json")).read_text())["width"] == 256
    assert (summary.n_images, summary.n_captions) == (72, 216)
    extract_features(config, 0, [scenes, scenes], settings, augmented_views=2)
    assert len(list(tmp_path.glob("image-*"))) == 2, "the second view has a separate cache"
