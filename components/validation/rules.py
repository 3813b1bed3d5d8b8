"""Rules of the validation over the columns of validation.facts, as plain data; runs nothing.

A failed "quarantine" rule removes its rows, an "error" stops the run, a "warning" is shown. Null facts are not checked.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

from image_finder.components.configs import ValidationConfig

REPEATED_ID = "caption_id_repeated"
_NEAR_EMPTY_WORDS = 3  # "a dog" says little; Flickr8k train has 15 shorter captions in 30,000, COCO val2017 none


class Expectation(NamedTuple):
    type: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class Rule:
    """One rule over one fact.

    column: for the report. example, observed: format strings over the columns of its frame.
    """

    severity: Literal["quarantine", "error", "warning"]
    name: str
    column: str
    expectation: Expectation
    description: str
    example: str = ""
    observed: str = ""  # of the first row; empty: failed of checked, or the value of Great Expectations


_quarantine, _error, _warning = (partial(Rule, severity) for severity in ("quarantine", "error", "warning"))


def _between(fact: str, low: float | None, high: float | None, *, failing_share: float = 0.0) -> Expectation:
    """Low <= fact <= high. failing_share: share of rows that may break it."""
    # The margin permits exactly the allowed share: 1 - 0.29 is 0.71 only up to the last bit.
    mostly = max(0.0, 1 - failing_share - 1e-12) if failing_share else 1.0
    arguments = {"column": fact, "min_value": low, "max_value": high, "mostly": mostly}
    return Expectation("expect_column_values_to_be_between", arguments)


def _among(fact: str, *values: str) -> Expectation:
    return Expectation("expect_column_values_to_be_in_set", {"column": fact, "value_set": list(values)})


def rules(config: ValidationConfig, extra_sets: Collection[str] = ()) -> dict[str, list[Rule]]:
    """The rules by the facts that they check, in the order in which they are reported; extra_sets: names."""
    fewest, most = config.min_captions_per_image, config.max_captions_per_image
    shortest, longest = config.min_caption_tokens, config.max_caption_tokens
    repeated = config.max_duplicated_share
    parts = ["train", "val", "test", *extra_sets]
    return {
        "types": [
            _error(
                *("columns_typed", "every column", _among("type", "right")),
                "columns of both tables hold 64-bit integers or text, and only captions may be missing",
                "{table}.{name}: {type}",
            )
        ],
        "tables": [
            _error(
                *("captions_present", "caption_id"),
                Expectation("expect_table_row_count_to_be_between", {"min_value": 1}),
                "the table holds at least one caption",
            ),
            _error(
                *("part_known", "part", _among("part", *parts)),
                f"every caption belongs to {', '.join(parts[:-1])} or {parts[-1]}",
                "caption {caption_id}: part {part!r}",
            ),
        ],
        "images": [
            _error(
                *("image_in_one_file", "image_id", _between("n_files", None, 1)),
                "an image id names one file",
                "image {image_id}: {n_files} file names, {first_file} and {last_file}",
            ),
            _error(
                *("image_in_one_part", "image_id", _between("n_parts", None, 1)),
                "no image is in two parts, by image id",
                "image {image_id}: {n_parts} parts, {first_file} and {last_file}",
            ),
        ],
        "contents": [
            _error(
                *("content_in_one_part", "sha256", _between("n_parts", None, 1)),
                "no image is in two parts, by content",
                "{first_file} and {last_file}: the same content in {first_part} and {last_part}",
            )
        ],
        "ids": [
            _quarantine(
                *(REPEATED_ID, "caption_id", _between("occurrence", None, 1)),
                "a caption id occurs once; the first one is kept",
                "caption {caption_id}: occurrence {occurrence}, {caption!r}",
            )
        ],
        "captions": [
            _quarantine(
                *("caption_empty", "caption", _between("characters", 1, None)),
                "a caption is not missing, empty or blank",
                "caption {caption_id}: {file_name}",
            ),
            _quarantine(
                *("caption_too_short", "caption", _between("tokens", shortest, None)),
                f"a caption has at least {shortest} tokens",
                "caption {caption_id}: {tokens:.0f} tokens, {caption!r}",
            ),
            _quarantine(
                *("caption_too_long", "caption", _between("tokens", None, longest)),
                f"a caption has at most {longest} tokens",
                "caption {caption_id}: {tokens:.0f} tokens, {caption!r}",
            ),
            _quarantine(
                *("image_missing", "file_name", _among("image", "present")),
                "the image of a caption exists",
                "caption {caption_id}: {file_name}, {image}",
            ),
            _quarantine(
                *("image_unreadable", "file_name", _among("decoding", "readable")),
                "the image of a caption can be decoded",
                "caption {caption_id}: {file_name}, {decoding}",
            ),
            _quarantine(
                *("image_size_differs", "width_px, height_px", _among("size", "equal")),
                "an image has its annotated size, as stored or upright, where one is annotated",
                "caption {caption_id}: {file_name}, {size}",
            ),
        ],
        "ranks": [
            _quarantine(
                *("too_few_captions", "image_id", _between("n_captions", fewest, None)),
                f"an image has at least {fewest} usable captions",
                "caption {caption_id}: {file_name} has {n_captions}",
            ),
            _quarantine(
                *("too_many_captions", "image_id", _between("rank", None, most)),
                f"an image has at most {most} usable captions; the first {most} are kept",
                "caption {caption_id}: number {rank} of {n_captions} of {file_name}",
            ),
        ],
        "parts": [
            _error(
                *("part_not_empty", "part", _between("n_captions", 1, None)),
                "every part of the data set has a usable caption",
                "part {part}: {n_captions} usable captions",
            )
        ],
        "texts": [
            _warning(
                *("caption_near_empty", "caption", _between("n_words", _NEAR_EMPTY_WORDS, None)),
                f"a caption has at least {_NEAR_EMPTY_WORDS} words",
                "caption {caption_id}: {caption!r}",
            ),
            _warning(
                *("caption_text_repeated", "caption", _between("n_same", None, 1, failing_share=repeated)),
                f"at most {100 * repeated:.4g}% of the captions repeat the text of another, without case and punctuation",
                "caption {caption_id}: one of {n_same} like {caption!r}",
            ),
        ],
        "drift": [
            _drift("image_count_drift", "n_images", "the number of images", config.max_count_drift),
            _drift("caption_count_drift", "n_captions", "the number of captions", config.max_count_drift),
            _drift(
                "caption_length_drift", "mean_caption_characters", "the mean caption length", config.max_length_drift
            ),
        ],
    }


def _drift(name: str, key: str, measure: str, limit: float) -> Rule:
    return _warning(
        *(name, key, _between(f"{key}_drift", None, limit)),
        f"{measure} changed by at most {100 * limit:.4g}% since the previous version",
        observed=f"{{{key}_before:.6g}} before, {{{key}_now:.6g}} now: changed by {{{key}_drift:.4%}}",
    )
