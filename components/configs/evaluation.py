"""Configurations of evaluation, export and promotion, with their gates."""

from pathlib import Path
from typing import Annotated, ClassVar, Self

from pydantic import Field, StringConstraints, model_validator

from image_finder.components.configs.base import Config, Share
from image_finder.components.configs.data import PartConfig
from image_finder.components.configs.slices import slice_fault
from image_finder.components.former_names import SliceName

# Also the prefix of MLflow metrics, so the other prefixes cannot be names.
SetName = Annotated[str, StringConstraints(pattern="^[a-z0-9][a-z0-9_-]{0,39}$")]
_RESERVED = {"train", "val", "test", "promotion", "baseline", "drift"}


class ExtraSetConfig(PartConfig):
    """A further evaluation set, and its floors for checkpoint and bundle."""

    min_mean_recall: Share = Field(0.0, description="floor of mean recall over both directions and all k")
    min_recall_at_10: Share = Field(0.0, description="floor of text-to-image recall@10")


class EvaluationConfig(Config):
    """Evaluation, and the floors of the quality gate."""

    ks: tuple[int, ...] = Field((1, 5, 10), description="cut-offs of recall@k")
    bootstrap_samples: int = Field(1000, ge=100)
    seed: int = Field(0, ge=0)
    captions_per_image: int | None = Field(
        None, ge=1, description="evaluate only the first captions of each image, by id; published figures of COCO use 5"
    )
    heat_map_pairs: int = Field(5, ge=2, le=20, description="images and captions in the similarity heat map")
    min_recall_at_10: Share = Field(
        0.0, description="floor of text-to-image recall@10; below it the gate stops the run"
    )
    min_times_random: float = Field(
        2.0, ge=0, description="floor of text-to-image recall@10 as a multiple of the random baseline"
    )
    extra_sets: dict[SetName, ExtraSetConfig] = Field(
        default_factory=dict,
        description="further evaluation sets by name: annotations and images as in dataset.parts, min_mean_recall and "
        "min_recall_at_10; the promotion rule compares the mean of mean recall over test (else val) and these",
    )

    @property
    def parts_of_sets(self) -> dict[str, PartConfig]:
        """Annotations and images of the extra sets, without floors."""
        return {
            name: PartConfig(annotations=each.annotations, images=each.images) for name, each in self.extra_sets.items()
        }

    @model_validator(mode="after")
    def _names_are_free(self) -> Self:
        if taken := sorted(_RESERVED & set(self.extra_sets)):
            raise ValueError(
                f"extra_sets names a set '{taken[0]}': choose another name than {', '.join(sorted(_RESERVED))}"
            )
        return self


class ExportConfig(Config):
    """ONNX export and the limits of its parity gate."""

    former_names: ClassVar = {"parity_pictures": "parity_images"}

    int8_text: bool = Field(False, description="quantise the text tower's weights to 8 bits (dynamic, per channel)")
    parity_images: int = Field(64, ge=8, description="test images used to compare the exported towers")
    min_cosine: float = Field(
        0.999, ge=-1, le=1, description="smallest cosine between the torch and the ONNX embedding of one input"
    )
    max_difference: float = Field(0.01, gt=0, description="largest absolute difference of one component")
    min_cosine_int8: float = Field(
        0.95, ge=-1, le=1, description="smallest cosine of a text tower with 8-bit weights; replaces both limits above"
    )
    max_recall_difference: Share = Field(
        0.01, description="largest loss of text-to-image recall@10 on the parity images"
    )


class PromotionConfig(Config):
    """Limits that a challenger must meet to become champion; recalls and gains are shares.

    A share of 0.01 is one point. The limits of latency and size keep a bundle fit for a laptop, with a margin for a
    busy machine of two cores.
    """

    min_mean_recall: Share = Field(0.0, description="floor of mean recall over both directions and all k")
    min_recall_at_10: Share = Field(0.0, description="floor of text-to-image recall@10 of the bundle")
    min_parity_cosine: float = Field(
        0.95,
        ge=-1,
        le=1,
        description="floor of the cosine between torch and ONNX vectors of one input, in addition to the parity gate",
    )
    max_text_ms: float = Field(500.0, gt=0, description="limit of the median time of one text, ms on the CPU")
    max_image_ms: float = Field(1000.0, gt=0, description="limit of the median time of one image, ms on the CPU")
    max_bundle_mb: float = Field(1000.0, gt=0, description="limit of the size of all files of the bundle, 10^6 bytes")
    min_gain: Share = Field(0.0, description="smallest gain in mean recall over the champion; 0: any gain above zero")
    set_allowance: Share = Field(
        0.02, description="largest loss of mean recall on one evaluation set, if there are extra sets"
    )
    slice_allowance: Share = Field(
        0.05, description="largest loss of a slice's recall, mean over all k, against the champion"
    )
    slice_allowances: dict[SliceName, Share] = Field(
        default_factory=dict,
        description="exceptions by 'slice' or 'slice: value', such as 'caption length: 1-8 words'; shares, 0 to 1",
    )
    min_slice_queries: int = Field(200, ge=1, description="fewest queries for a slice to be checked")

    @model_validator(mode="after")
    def _allowances_name_slices(self) -> Self:
        for key in self.slice_allowances:
            if fault := slice_fault(key):
                raise ValueError(f"slice_allowances names '{key}': {fault}")
        return self


class RegistryConfig(Config):
    """Registration and promotion."""

    model_name: str = "image-finder"
    baseline: Path | None = Field(
        None,
        description="folder of a bundle, such as an imported model, that every challenger is compared with in the report",
    )
    promotion: PromotionConfig = Field(default_factory=PromotionConfig)
