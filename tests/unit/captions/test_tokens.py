"""Tokens: ids, mask, limit, counts."""

import numpy as np
import pytest

from image_finder.components.captions.tokens import Tokenizer, packaged_tokenizer_json
from image_finder.components.errors import BundleError

START, END = 101, 102


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer(packaged_tokenizer_json(), 8)


def test_rows_are_padded_with_zeros_after_the_end_token(tokenizer):
    ids, mask = tokenizer(["a dog", "A dog runs."])
    np.testing.assert_array_equal(ids, [[START, 1037, 3899, END, 0, 0], [START, 1037, 3899, 3216, 1012, END]])
    np.testing.assert_array_equal(mask, [[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]])
    assert ids.dtype == mask.dtype == np.int64


def test_a_long_text_is_cut_and_keeps_its_end_token(tokenizer):
    ids, mask = tokenizer(["dog " * 50])
    np.testing.assert_array_equal(ids, [[START, *[3899] * 6, END]])
    assert mask.sum() == 8


def test_counts_are_uncut_and_without_special_tokens(tokenizer):
    np.testing.assert_array_equal(tokenizer.count(["dog " * 50, "a dog runs.", "", "  \n"]), [50, 4, 0, 0])


def test_rows_do_not_depend_on_the_other_texts(tokenizer):
    texts = ["a dog", "", "naïve café 鳥 🐦", "two dogs play in the deep snow today"]
    together = tokenizer(texts)
    for row, text in enumerate(texts):
        alone = tokenizer([text])
        np.testing.assert_array_equal(together.ids[row][together.mask[row] == 1], alone.ids[0])


def test_no_texts_are_no_rows(tokenizer):
    assert tokenizer([]).ids.shape == (0, 0)
    assert tokenizer.count([]).shape == (0,)


def test_special_tokens_that_are_written_out_do_not_end_a_text(tokenizer):
    ids, mask = tokenizer(["a [PAD] dog"])
    assert mask.sum() == len(ids[0])


@pytest.mark.parametrize("content", [b"{", b"\xff", b"{}", None])
def test_a_file_that_is_no_tokenizer_is_a_one_line_error(tmp_path, content):
    path = tmp_path / "tokenizer.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BundleError, match=r"^\S+tokenizer.json is not a tokenizer.json: [^\n]*; restore the file$"):
        Tokenizer.from_file(path, 8)
