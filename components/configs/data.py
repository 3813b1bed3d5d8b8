"""Configurations of captioned images: where they come from, what is sane, how they are divided."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from image_finder.components.configs.base import Config, Revision


class PartConfig(Config):
    """Captioned images of a part of a data set: an annotation file (or hub split) and the folder of its images."""

    annotations: str = Field(
        description="COCO captions JSON or Parquet table, relative to root; or a split's name on the hub"
    )
    images: str = Field(description="folder of the part's images, relative to root")


def _listed(value: object) -> object:
    return [value] if isinstance(value, dict | PartConfig) else value


PartConfigs = Annotated[tuple[PartConfig, ...], BeforeValidator(_listed), Field(min_length=1)]


class DatasetConfig(Config):
    """Where captioned images come from."""

    name: str = Field(description="name in reports, tags and artefacts; those of several data sets are joined by +")
    layout: Literal["coco", "coco2017_table", "demo"] = Field(
        "coco", description="COCO captions JSON; table of phiyodr/coco2017; or the demo scenes"
    )
    root: Path | None = Field(None, description="folder that holds the data set; the demo makes its own")
    parts: dict[Literal["train", "val", "test"], PartConfigs] = Field(
        default_factory=dict, description="parts the data set comes in; several annotation files of one are a list"
    )
    hub_dataset: str | None = Field(
        None, description="Hugging Face data set that holds the table, e.g. phiyodr/coco2017; None: local Parquet"
    )
    hub_revision: Revision | None = Field(
        None, description="commit of hub_dataset, 40 hex digits; hub_dataset needs it"
    )
    demo_seed: int = Field(0, description="seed of the demo scenes")
    demo_images: int = Field(1500, ge=20, description="number of demo scenes")
    max_images: int | None = Field(None, ge=1, description="use only the first so many images of each part, by id")

    @model_validator(mode="after")
    def _parts_fit_layout(self) -> Self:
        if self.layout == "demo" and self.parts:
            raise ValueError("parts must be empty when layout is 'demo'")
        if self.layout != "demo" and not self.parts:
            raise ValueError(f"parts must name at least one part when layout is '{self.layout}'")
        for name, files in self.parts.items():
            if len(files) != len({file.annotations for file in files}):
                raise ValueError(f"part '{name}' names an annotation file twice")
        return self


class ValidationConfig(Config):
    """Limits of the data validation; the gate compares measured shares against them."""

    min_caption_tokens: int = Field(3, ge=1, description="shortest sane caption, tokens without the special ones")
    max_caption_tokens: int = Field(128, ge=1, description="longest sane caption, tokens without the special ones")
    min_captions_per_image: int = Field(1, ge=1)
    max_captions_per_image: int = Field(10, ge=1)
    max_quarantined_share: float = Field(
        0.02, ge=0, le=1, description="share of captions that may be quarantined before the gate stops the run"
    )
    max_duplicated_share: float = Field(
        0.05, ge=0, le=1, description="share of captions whose text stands elsewhere too before a warning"
    )
    max_count_drift: float = Field(
        0.2,
        ge=0,
        description="relative change of image and caption counts against the previous version before a warning",
    )
    max_length_drift: float = Field(
        0.2,
        ge=0,
        description="relative change of the mean caption length against the previous version before a warning",
    )

    @model_validator(mode="after")
    def _ranges_are_ordered(self) -> Self:
        for low, high in (
            ("min_caption_tokens", "max_caption_tokens"),
            ("min_captions_per_image", "max_captions_per_image"),
        ):
            if getattr(self, low) > getattr(self, high):
                raise ValueError(f"{low} ({getattr(self, low)}) must not be above {high} ({getattr(self, high)})")
        return self


class SplitConfig(Config):
    """How images are divided; a part the data set brings itself is kept as it is."""

    seed: int = Field(0, ge=0)
    val_fraction: float = Field(
        0.1, ge=0, lt=1, description="share of train images held out when the data set brings no val part"
    )
    test_fraction: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of train images held out when the data set brings no test part; 0: val is reported",
    )

    @model_validator(mode="after")
    def _fractions_leave_train(self) -> Self:
        if self.val_fraction + self.test_fraction >= 1:
            raise ValueError(
                f"val_fraction ({self.val_fraction}) and test_fraction ({self.test_fraction}) must add up to less than 1"
            )
        return self
