"""Configurations of captioned images: source, validation, split."""

from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from image_finder.components.configs.base import Config, Revision, Share


class PartConfig(Config):
    """Captioned images of a part: an annotation file (or hub split) and an image folder."""

    annotations: str = Field(
        description="COCO captions JSON or Parquet table, relative to root; or the name of a split on the hub"
    )
    images: str = Field(description="folder of the part's images, relative to root")


def _listed(value: object) -> object:
    return [value] if isinstance(value, dict | PartConfig) else value


PartConfigs = Annotated[tuple[PartConfig, ...], BeforeValidator(_listed), Field(min_length=1)]


class DatasetConfig(Config):
    """A data set of captioned images."""

    former_names: ClassVar = {"demo_pictures": "demo_images"}

    name: str = Field(description="name in reports, tags and artefacts; join those of several data sets by +")
    layout: Literal["coco", "coco2017_table", "demo"] = Field(
        "coco", description="COCO captions JSON; table of phiyodr/coco2017; or the demo scenes"
    )
    root: Path | None = Field(None, description="folder of the data set; the demo creates its own")
    parts: dict[Literal["train", "val", "test"], PartConfigs] = Field(
        default_factory=dict, description="parts of the data set; a part with several annotation files is a list"
    )
    hub_dataset: str | None = Field(
        None, description="Hugging Face data set with the table, such as phiyodr/coco2017; None: local Parquet"
    )
    hub_revision: Revision | None = Field(
        None, description="commit of hub_dataset, 40 hex digits; required with hub_dataset"
    )
    demo_seed: int = Field(0, description="seed of the demo scenes")
    demo_images: int = Field(1500, ge=20, description="number of demo scenes")
    max_images: int | None = Field(None, ge=1, description="use only the first images of each part, by id")

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
    """Limits of the data validation and its gate."""

    min_caption_tokens: int = Field(3, ge=1, description="shortest valid caption, in tokens without special ones")
    max_caption_tokens: int = Field(128, ge=1, description="longest valid caption, in tokens without special ones")
    min_captions_per_image: int = Field(1, ge=1)
    max_captions_per_image: int = Field(10, ge=1)
    max_quarantined_share: Share = Field(
        0.02, description="largest share of quarantined captions; above it the gate stops the run"
    )
    max_duplicated_share: Share = Field(
        0.05, description="largest share of captions with the text of another; above it a warning"
    )
    max_count_drift: float = Field(
        0.2,
        ge=0,
        description="largest relative change of image and caption counts since the previous version; above it a warning",
    )
    max_length_drift: float = Field(
        0.2,
        ge=0,
        description="largest relative change of the mean caption length since the previous version; above it a warning",
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
    """Division of images; parts of the data set are kept."""

    seed: int = Field(0, ge=0)
    val_fraction: float = Field(
        0.1, ge=0, lt=1, description="share of train images held out if the data set has no val part"
    )
    test_fraction: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of train images held out if the data set has no test part; 0: reports use val",
    )

    @model_validator(mode="after")
    def _fractions_leave_train(self) -> Self:
        if self.val_fraction + self.test_fraction >= 1:
            raise ValueError(
                f"val_fraction ({self.val_fraction}) and test_fraction ({self.test_fraction}) must add up to less than 1"
            )
        return self
