import numpy as np
import pytest

from image_finder.components.bundle.bundle import IMAGE_ENCODER, Bundle
from image_finder.components.bundle.encoder import OnnxEncoder
from image_finder.components.bundle.onnx_session import open_session
from image_finder.components.errors import BundleError, ConfigError, ImageError


def test_words_and_images_of_one_colour_have_equal_vectors(colour_bundle):
    encoder = OnnxEncoder(colour_bundle, device="cpu")
    pixels = np.zeros((3, 8, 8, 3), np.uint8)
    for row in range(3):
        pixels[row, :, :, row] = 200
    similarity = encoder.encode_text(["red", "green thing", "a blue one"]) @ encoder.encode_image(pixels).T
    np.testing.assert_allclose(np.diag(similarity), 1, atol=1e-3)
    assert similarity[~np.eye(3, dtype=bool)].max() < 0.05


def test_vectors_do_not_depend_on_batch_or_padding(colour_bundle):
    encoder = OnnxEncoder(colour_bundle, device="cpu")
    texts = ["red", "red green blue white", "yellow"]
    together = encoder.encode_text(texts)
    np.testing.assert_array_equal(together, np.concatenate([encoder.encode_text([text]) for text in texts]))
    pixels = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    alone = np.concatenate([encoder.encode_image(image[None]) for image in pixels])
    np.testing.assert_allclose(encoder.encode_image(pixels), alone, atol=1e-6)


@pytest.mark.parametrize("n_images", [0, 1, 2, 8, 9, 17, 40])
def test_any_number_of_images_is_encoded_a_few_at_a_time(colour_bundle, monkeypatch, n_images):
    encoder = OnnxEncoder(colour_bundle, device="cpu", throughput=True)
    pixels = np.random.default_rng(0).integers(0, 256, (n_images, 8, 8, 3), dtype=np.uint8)
    alone = [encoder.encode_image(image[None])[0] for image in pixels]
    sizes = []
    encode = encoder._encode_batch
    monkeypatch.setattr(encoder, "_encode_batch", lambda batch: sizes.append(len(batch)) or encode(batch))
    for images in (pixels, list(pixels), (image for image in pixels)):
        np.testing.assert_array_equal(encoder.encode_image(images), np.reshape(alone, (n_images, 3)))
    assert (sum(sizes), max(sizes, default=0)) == (3 * n_images, min(n_images, 8))


def test_images_are_read_one_batch_ahead(colour_bundle, monkeypatch):
    encoder = OnnxEncoder(colour_bundle, device="cpu")
    n_read, n_encoded = [], []

    def images():
        for number in range(40):
            n_read.append(number)
            yield np.full((8, 8, 3), number, np.uint8)

    encode = encoder._encode_batch

    def encode_batch(batch):
        assert len(n_read) <= len(n_encoded) + 2 * 8
        n_encoded.extend(batch)
        return encode(batch)

    monkeypatch.setattr(encoder, "_encode_batch", encode_batch)
    assert encoder.encode_image(images()).shape == (40, 3)


def test_an_image_that_cannot_be_read_ends_the_encoding_with_its_error(colour_bundle):
    encoder = OnnxEncoder(colour_bundle, device="cpu")
    with pytest.raises(ImageError):
        encoder.encode_image(encoder.preprocess.load(data) for data in (b"", b""))


def test_texts_above_the_limit_are_truncated(colour_bundle):
    encoder = OnnxEncoder(colour_bundle, device="cpu")
    cut, whole = encoder.encode_text(["red " * 8 + "blue " * 50, "red " * 8])
    np.testing.assert_array_equal(cut, whole)


def test_no_texts_give_no_rows(colour_bundle):
    assert OnnxEncoder(colour_bundle, device="cpu").encode_text([]).shape == (0, 3)


def test_a_graph_that_cannot_be_opened_is_a_one_line_error_with_its_path(tmp_path):
    path = tmp_path / IMAGE_ENCODER
    path.write_bytes(b"not a graph")
    with pytest.raises(BundleError, match=f"cannot open ONNX graph {path}") as caught:
        open_session(path, device="cpu")
    assert "\n" not in str(caught.value)


def test_a_bundle_damaged_after_opening_is_a_one_line_error(write_colour_bundle, tmp_path):
    bundle = write_colour_bundle(tmp_path / "bundle")
    (bundle.path / "preprocess.json").write_text("{}")
    with pytest.raises(BundleError, match=r"preprocess\.json"):
        OnnxEncoder(Bundle.open(bundle.path, verify=False), device="cpu")


def test_unavailable_cuda_is_refused_with_the_available_providers(colour_bundle, monkeypatch):
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(ConfigError, match="ONNX Runtime offers CPUExecutionProvider"):
        open_session(colour_bundle.path / IMAGE_ENCODER, device="cuda")
