"""Rules of the validation over the columns of validation.facts, as plain data; runs nothing.

A failed "quarantine" rule removes its rows, an "error" stops the run, a "warning" is shown. Null facts are not checked.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from image_finder.components.configs import ValidationConfig

REPEATED_ID = "caption_id_repeated"
_NEAR_EMPTY_WORDS = 3  # "a dog" says little; Flickr8k train has 15 shorter captions in 30,000, COCO val2017 none


@dataclass(frozen=True)
class Rule:
    """One rule over one fact.

    example, observed: format strings over the columns of its frame.
    """

    name: str
    severity: Literal["quarantine", "error", "warning"]
    column: str
    description: str
    expectation: str  # name in Great Expectations; its arguments follow
    arguments: Mapping[str, Any] = field(default_factory=dict)
    example: str = ""
    observed: str = ""  # of the first row; empty: failed of checked, or the value of Great Expectations

    @classmethod
    def within(cls, fact: str, *, low: float | None = None, high: float | None = None, **parts: Any) -> "Rule":  # noqa: ANN401
        """A rule that low <= fact <= high. failing_share: share of rows that may break it."""
        allowed = parts.pop("failing_share", 0.0)
        # The margin permits exactly the allowed share: 1 - 0.29 is 0.71 only up to the last bit.
        mostly = max(0.0, 1 - allowed - 1e-12) if allowed else 1.0
        arguments = {"column": fact, "min_value": low, "max_value": high, "mostly": mostly}
        return cls(expectation="expect_column_values_to_be_between", arguments=arguments, **parts)

    @classmethod
    def among(cls, fact: str, *values: str, **parts: Any) -> "Rule":  # noqa: ANN401
        """A rule that fact is one of values."""
        arguments = {"column": fact, "value_set": list(values)}
        return cls(expectation="expect_column_values_to_be_in_set", arguments=arguments, **parts)


def type_rules() -> list[Rule]:
    """Over type_facts."""
    return [
        Rule.among(
            "type",
            "right",
            name="columns_typed",
            severity="error",
            column="every column",
            description="columns of both tables hold 64-bit integers or text, and only captions may be missing",
            example="{table}.{name}: {type}",
        )
    ]


def table_rules() -> list[Rule]:
    """Over the captions table as read."""
    return [
        Rule(
            name="captions_present",
            severity="error",
            column="caption_id",
            description="the table holds at least one caption",
            expectation="expect_table_row_count_to_be_between",
            arguments={"min_value": 1},
        ),
        Rule.among(
            "part",
            *("train", "val", "test"),
            name="part_known",
            severity="error",
            column="part",
            description="every caption belongs to train, val or test",
            example="caption {caption_id}: part {part!r}",
        ),
    ]


def image_rules() -> list[Rule]:
    """Over image_facts."""
    return [
        Rule.within(
            "n_files",
            high=1,
            name="image_in_one_file",
            severity="error",
            column="image_id",
            description="an image id names one file",
            example="image {image_id}: {n_files} file names, {first_file} and {last_file}",
        ),
        Rule.within(
            "n_parts",
            high=1,
            name="image_in_one_part",
            severity="error",
            column="image_id",
            description="no image is in two parts, by image id",
            example="image {image_id}: {n_parts} parts, {first_file} and {last_file}",
        ),
    ]


def content_rules() -> list[Rule]:
    """Over content_facts."""
    return [
        Rule.within(
            "n_parts",
            high=1,
            name="content_in_one_part",
            severity="error",
            column="sha256",
            description="no image is in two parts, by content",
            example="{first_file} and {last_file}: the same content in {n_parts} parts",
        )
    ]


def id_rules() -> list[Rule]:
    """Over id_facts."""
    return [
        Rule.within(
            "occurrence",
            high=1,
            name=REPEATED_ID,
            severity="quarantine",
            column="caption_id",
            description="a caption id occurs once; the first one is kept",
            example="caption {caption_id}: occurrence {occurrence}, {caption!r}",
        )
    ]


def caption_rules(config: ValidationConfig) -> list[Rule]:
    """Over the caption's own columns of caption_facts."""
    return [
        Rule.within(
            "characters",
            low=1,
            name="caption_empty",
            severity="quarantine",
            column="caption",
            description="a caption is not missing, empty or blank",
            example="caption {caption_id}: {file_name}",
        ),
        Rule.within(
            "tokens",
            low=config.min_caption_tokens,
            name="caption_too_short",
            severity="quarantine",
            column="caption",
            description=f"a caption has at least {config.min_caption_tokens} tokens",
            example="caption {caption_id}: {tokens:.0f} tokens, {caption!r}",
        ),
        Rule.within(
            "tokens",
            high=config.max_caption_tokens,
            name="caption_too_long",
            severity="quarantine",
            column="caption",
            description=f"a caption has at most {config.max_caption_tokens} tokens",
            example="caption {caption_id}: {tokens:.0f} tokens, {caption!r}",
        ),
    ]


def image_state_rules() -> list[Rule]:
    """Over the image's columns of caption_facts."""
    return [
        Rule.among(
            "image",
            "present",
            name="image_missing",
            severity="quarantine",
            column="file_name",
            description="the image of a caption exists",
            example="caption {caption_id}: {file_name}, {image}",
        ),
        Rule.among(
            "decoding",
            "readable",
            name="image_unreadable",
            severity="quarantine",
            column="file_name",
            description="the image of a caption can be decoded",
            example="caption {caption_id}: {file_name}, {decoding}",
        ),
        Rule.among(
            "size",
            "equal",
            name="image_size_differs",
            severity="quarantine",
            column="width_px, height_px",
            description="an image has its annotated size, as stored or upright, where one is annotated",
            example="caption {caption_id}: {file_name}, {size}",
        ),
    ]


def rank_rules(config: ValidationConfig) -> list[Rule]:
    """Over rank_facts."""
    fewest, most = config.min_captions_per_image, config.max_captions_per_image
    return [
        Rule.within(
            "n_captions",
            low=fewest,
            name="too_few_captions",
            severity="quarantine",
            column="image_id",
            description=f"an image has at least {fewest} usable captions",
            example="caption {caption_id}: {file_name} has {n_captions}",
        ),
        Rule.within(
            "rank",
            high=most,
            name="too_many_captions",
            severity="quarantine",
            column="image_id",
            description=f"an image has at most {most} usable captions; the first {most} are kept",
            example="caption {caption_id}: number {rank} of {n_captions} of {file_name}",
        ),
    ]


def part_rules() -> list[Rule]:
    """Over part_facts."""
    return [
        Rule.within(
            "n_captions",
            low=1,
            name="part_not_empty",
            severity="error",
            column="part",
            description="every part of the data set has a usable caption",
            example="part {part}: {n_captions} usable captions",
        )
    ]


def text_rules(config: ValidationConfig) -> list[Rule]:
    """Over text_facts."""
    share = config.max_duplicated_share
    return [
        Rule.within(
            "n_words",
            low=_NEAR_EMPTY_WORDS,
            name="caption_near_empty",
            severity="warning",
            column="caption",
            description=f"a caption has at least {_NEAR_EMPTY_WORDS} words",
            example="caption {caption_id}: {caption!r}",
        ),
        Rule.within(
            "n_same",
            high=1,
            failing_share=share,
            name="caption_text_repeated",
            severity="warning",
            column="caption",
            description=f"at most {100 * share:.4g}% of the captions repeat the text of another, without case and punctuation",
            example="caption {caption_id}: one of {n_same} like {caption!r}",
        ),
    ]


def drift_rules(config: ValidationConfig) -> list[Rule]:
    """Over drift_facts."""
    measures = (
        ("image_count_drift", "n_images", "the number of images", config.max_count_drift),
        ("caption_count_drift", "n_captions", "the number of captions", config.max_count_drift),
        ("caption_length_drift", "mean_caption_characters", "the mean caption length", config.max_length_drift),
    )
    return [
        Rule.within(
            f"{key}_drift",
            high=limit,
            name=name,
            severity="warning",
            column=key,
            description=f"{what} changed by at most {100 * limit:.4g}% since the previous version",
            observed=f"{{{key}_before:.6g}} before, {{{key}_now:.6g}} now: changed by {{{key}_drift:.4%}}",
        )
        for name, key, what, limit in measures
    ]
