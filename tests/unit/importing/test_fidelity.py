"""Imported bundles answer as the original library does: tokens, pixels, vectors, scores and probabilities."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from image_finder.components.bundle.bundle import Bundle
from image_finder.components.errors import BundleError, QualityError, QueryError
from image_finder.components.importing.fidelity import BATCHES, PROBES, measure_fidelity, require_fidelity
from image_finder.components.search.labels import Labels
from tests.support.original_models import CAPTIONS, FAMILIES

pytestmark = pytest.mark.slow  # each family is exported once

CLOSE = 1e-4
LABELS = ["a dog", "two children", "a blue car", "the beach"]


@pytest.fixture(params=FAMILIES)
def pair(request, imported):
    return imported(request.param)


def photographs():
    """Encoded images of many shapes, as files have them: JPEG, PNG, grey, transparent, palette."""
    rng = np.random.default_rng(1)
    for width, height in ((320, 213), (213, 320), (97, 300), (64, 64), (65, 64), (401, 399), (1200, 80)):
        noise = Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)).resize((width, height), 3)
        for kind, image in (("JPEG", noise), ("PNG", noise.convert("L")), ("PNG", noise.convert("RGB").quantize(32))):
            stream = io.BytesIO()
            image.save(stream, kind)
            yield stream.getvalue()


def test_each_text_gets_the_tokens_of_the_original(pair):
    original, encoder = pair
    numbered = [f"{caption} {number}" for number, caption in enumerate(CAPTIONS)]
    texts = [
        *PROBES,
        *CAPTIONS,
        *numbered,
        *(caption.upper() for caption in CAPTIONS),
        *(f"{each}!" for each in CAPTIONS),
    ]
    assert len(texts) > 1000
    different = []
    for text, theirs in zip(texts, original.reference.ids(texts).tolist(), strict=True):
        row = encoder.tokenizer([text])
        ours = row.ids[0][: row.mask[0].sum()].tolist()
        if theirs[: len(ours)] != ours or set(theirs[len(ours) :]) - {original.tokenizer.padding.token}:
            different.append(text)
    assert different == []


def test_each_image_gets_the_pixels_of_the_original(pair):
    original, encoder = pair
    mean, std = (
        np.array(each, np.float32)[:, None, None] for each in (encoder.preprocess.mean, encoder.preprocess.std)
    )
    for data in photographs():
        ours = encoder.preprocess.load(data).transpose(2, 0, 1).astype(np.float32) / 255
        with Image.open(io.BytesIO(data)) as image:
            theirs = original.reference.pixels(image.convert("RGB"))
        np.testing.assert_allclose((ours - mean) / std, theirs, atol=1e-5)


def test_vectors_do_not_depend_on_the_batch_and_differ_less_than_the_limit(pair):
    original, encoder = pair
    texts = [*PROBES, *CAPTIONS[:20]]
    expected = original.reference.texts(texts)
    assert len(np.unique(expected.round(3), axis=0)) > 0.9 * len(texts), "else the comparison shows nothing"
    for batch in BATCHES:
        for start in range(0, len(texts), batch):
            tokens = encoder.tokenizer(texts[start : start + batch])
            np.testing.assert_allclose(encoder.encode_tokens(tokens), expected[start : start + batch], atol=CLOSE)
    np.testing.assert_allclose(encoder.encode_text(texts), expected, atol=CLOSE)


def test_probabilities_of_labels_are_those_of_the_original(pair):
    original, encoder = pair
    data = list(photographs())[:3]
    pixels = np.stack([encoder.preprocess.load(each) for each in data])
    found = Labels(encoder, LABELS, templates=("{}",)).score(encoder.encode_image(pixels))
    with torch.inference_mode():
        expected = _probabilities(original, [Image.open(io.BytesIO(each)).convert("RGB") for each in data])
    for answer, row in zip(found, expected, strict=True):
        ours = {each.label: each.probability for each in answer}
        assert [ours[label] for label in LABELS] == pytest.approx(row.tolist(), abs=1e-4)


def _probabilities(original, images):
    """By the library's own forward pass, softmax for CLIP and sigmoid for SigLIP."""
    library = original.reference
    if original.library.startswith("open_clip"):
        pixels = torch.stack([library.transform(image) for image in images])
        logits, _ = library.model.get_logits(pixels, library.tokenizer(LABELS))
    else:
        pixels = library.processor(images, return_tensors="pt")["pixel_values"]
        tokens = library._tokens(LABELS)
        logits = library.model(pixel_values=pixels, **tokens).logits_per_image
    return logits.sigmoid() if original.scores.logit_bias is not None else logits.softmax(dim=1)


def test_a_tower_that_differs_is_refused_with_both_numbers(imported):
    original, encoder = imported("clip")
    found = measure_fidelity(original, encoder)
    assert found.max_difference < 1e-5
    require_fidelity(found, original)
    with pytest.raises(
        QualityError, match=r"text tower differs by 0.01, at most 0.0001 is allowed.*nothing was written"
    ):
        require_fidelity(found._replace(text=0.01), original)
    with pytest.raises(QualityError, match="gets other tokens"):
        require_fidelity(found._replace(texts_differ=("a dog",)), original)
    with pytest.raises(QualityError, match="3 x 4 pixels is resized differently"):
        require_fidelity(found._replace(images_differ=("3 x 4",)), original)


def test_a_bundle_names_its_origin_and_has_no_attention_to_show(imported, original_folder):
    _, encoder = imported("siglip")
    bundle = Bundle.open(encoder.bundle.path)
    origin = bundle.manifest.imported
    assert origin is not None
    assert (origin.source, origin.architecture) == (str(original_folder("siglip")), "siglip")
    assert origin.library.startswith("transformers ")
    assert bundle.manifest.padding.full
    assert bundle.vocabulary() is None
    assert bundle.scores().matches is None
    assert "# " + origin.source in (bundle.path / "MODEL_CARD.md").read_text()
    with pytest.raises(QueryError, match="no attention pooling"):
        encoder.attention(np.zeros((1, encoder.preprocess.input_px, encoder.preprocess.input_px, 3), np.uint8))


def test_an_existing_folder_is_never_replaced(imported, original_folder):
    from image_finder.components.importing.importer import ImportOptions, import_model
    from image_finder.components.importing.source import find_source

    _, encoder = imported("siglip")
    with pytest.raises(BundleError, match="exists and may be in use"):
        import_model(find_source(str(original_folder("siglip"))), encoder.bundle.path, ImportOptions())
